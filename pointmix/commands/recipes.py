"""List the recipes that come with pointmix, or print one.

pointmix recipes                     # all of them
pointmix recipes cifar               # those that mention CIFAR in their name, data or description
pointmix recipes image/coc_cifar10   # the file itself, to copy and change

A name is what --config takes: pointmix train image --config image/coc_cifar10 --data.root DIR.
"""

from __future__ import annotations

import difflib
from argparse import Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

if TYPE_CHECKING:
    from pointmix.engine.shipped import Head


def main(argv: list[str], prog: str = "pointmix recipes") -> int:
    return exit_code(lambda: show(parse(argv, prog)))


def parse(argv: list[str], prog: str) -> Namespace:
    from pointmix.engine.command import TaskParser

    about = described(__doc__, "pointmix recipes", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="a recipe's name, or what to look for")
    return parser.parse_args(argv)


def show(args: Namespace) -> None:
    """Print the recipe of that name, or the table of those that hold the text.

    Raises:
        ValueError: none holds it; the message lists names that are near.
    """
    from pointmix.engine.shipped import find, head, names

    known = names()
    if args.text in known:
        print(find(args.text).read_text(encoding="utf-8"), end="")
        return
    whole_first = sorted(known, key=lambda name: name.startswith("ablations/"))
    rows = [(name, data_source(name), head(find(name))) for name in whole_first]
    text = (args.text or "").lower()
    rows = [row for row in rows if text in " ".join(map(str, row)).lower()]
    if not rows:
        near = difflib.get_close_matches(args.text, known)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"no recipe mentions {args.text!r}{hint}")
    print_table(rows)


def data_source(name: str) -> str:
    """The data.source of a recipe, empty where its base sets it."""
    from pointmix.engine.recipes import load_yaml
    from pointmix.engine.shipped import find

    recipe = load_yaml(find(name).read_text(encoding="utf-8"), name)
    return str((recipe.get("data") or {}).get("source", ""))


def print_table(rows: list[tuple[str, str, Head | None]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("recipe", "train", "data", "what it is, its cost and its result")
    for name, data, about in rows:
        if about is not None:
            words = f"{first_sentence(about.about)}\nCost: {about.cost}\nResult: {about.result}"
            table.add_row(Text(name), about.kind or "ablate", data, Text(words))
            table.add_section()
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else 160  # files and pipes take longer lines
    console.print(table)


def first_sentence(text: str) -> str:
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]
