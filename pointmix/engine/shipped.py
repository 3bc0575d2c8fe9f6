"""The recipes that come with the package, by name: image/coc_cifar10 is configs/image/coc_cifar10.yaml."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TRAIN = re.compile(r"pointmix train (\w+)")


def folder() -> Path:
    """The folder of all recipes: inside the package where that is installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return inside if (inside := package / "configs").is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of all recipes."""
    top = folder()
    return sorted(file.relative_to(top).with_suffix("").as_posix() for file in top.rglob("*.yaml"))


def find(name: str) -> Path:
    """The file of a recipe.

    Args:
        name: a path, or a name as `names` lists it.

    Raises:
        FileNotFoundError: there is no such file and no such name; the message lists names that are near.
    """
    if Path(name).is_file():
        return Path(name)
    known = names()
    if name in known:
        return folder() / f"{name}.yaml"
    meant = name.removeprefix("configs/").removesuffix(".yaml")
    near = [meant] if meant in known else difflib.get_close_matches(meant, known)
    hint = f", did you mean {' or '.join(near)}?" if near else "; pointmix recipes lists them"
    raise FileNotFoundError(f"no configuration file {name!r} and no recipe of that name{hint}")


def find_all(pattern: str) -> list[Path]:
    """The files of recipes by a path, a name, or a pattern of names such as ablations/*.

    Raises:
        FileNotFoundError: there are none.
    """
    found = [name for name in names() if "*" in pattern and PurePosixPath(name).match(pattern)]
    return [find(name) for name in found or [pattern]]


@dataclass(frozen=True)
class Head:
    """What the comment at the top of a recipe says.

    Attributes:
        command: how to train it.
        cost: time, hardware or size.
        result: what was measured or published.
        about: what it is, all of the rest.
    """

    command: str
    cost: str
    result: str
    about: str

    @property
    def kind(self) -> str | None:
        """The word after `pointmix train` in its command; None for a part of a recipe, which `ablate` completes."""
        found = TRAIN.search(self.command)
        return found[1] if found else None


def head(file: Path) -> Head | None:
    """The comment at the top of a recipe; None for a file that has no command, Cost and Result in its first lines."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    if len(lines) < 3 or not (lines[1].startswith("Cost: ") and lines[2].startswith("Result: ")):
        return None
    return Head(
        lines[0], lines[1].removeprefix("Cost: "), lines[2].removeprefix("Result: "), " ".join(lines[3:]).strip()
    )
