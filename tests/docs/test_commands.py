"""Every command in README.md, docs/, the heads of recipes and the commands' own help has flags that exist."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pointmix.commands.main import COMMANDS
from pointmix.commands.train import KINDS
from pointmix.engine.shipped import find
from pointmix.tasks.base import get_task, list_tasks
from pointmix.tasks.config import RunConfig, as_plain

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(ROOT.glob("docs/**/*.md"))
RECIPES, MODULES = sorted(ROOT.glob("configs/**/*.yaml")), sorted(ROOT.glob("pointmix/commands/*.py"))
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python scripts/|pointmix )[^`\n]*)`")
COMMAND = re.compile(r"(?:scripts/)?(train|train_\w+|evaluate|predict|explain|describe|ablate)\.py")

KWARGS = re.compile(r"(kwargs)\.\w+$")  # any argument of the network
OWN = {"my_recipe.yaml", "config.yaml"}  # recipes of the reader


class Command(NamedTuple):
    name: str  # a key of FLAGS
    words: list[str]  # after the name


def texts(file: Path) -> Iterator[str]:
    """Shell text of a file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".yaml":
        lines = text.replace("\\\n#", " ").splitlines()
        yield "\n".join(line.lstrip("# ") for line in lines if re.match(r"# *(pointmix|torchrun) ", line))
    elif file.suffix == ".py":
        yield "\n".join(re.findall(r"^(?:pointmix|torchrun) .*", text, re.MULTILINE))
    else:
        yield from BLOCK.findall(text)
        yield from INLINE.findall(text)


def commands(file: Path) -> Iterator[Command]:
    for text in texts(file):
        pending = ""
        for line in text.replace("\\\n", " ").splitlines():
            pending += line
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # a quotation that goes on in the next line
                pending += "\n"
                continue
            yield from named(words)
            pending = ""
        assert not pending, f"{file.name} has a quotation without an end: {pending}"


def named(words: list[str]) -> Iterator[Command]:
    """The command of one line, if it is one of ours."""
    for place, word in enumerate(words):
        if match := COMMAND.fullmatch(word):
            kind = match[1].removeprefix("train_")
            yield Command(f"train {kind}" if word != f"{kind}.py" and kind in KINDS else kind, words[place + 1 :])
            return
        if word == "pointmix" and place + 1 < len(words) and words[place + 1] in COMMANDS:
            name, rest = words[place + 1], words[place + 2 :]
            if name == "train" and "--task" not in rest:
                kind = rest[0] if rest and not rest[0].startswith("-") else "image"
                name, rest = f"train {kind}", rest[rest[:1] == [kind] :]
            yield Command(name, rest)
            return


def keys(config: dict[str, object], prefix: str = "--") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, dict) and prefix == "--":
            yield from keys(value, f"--{key}.")


@functools.cache
def flags(name: str) -> set[str]:
    """What a command takes."""
    kind, _, word = name.partition(" ")
    configs = [get_task(task).config for task in list_tasks()]
    if kind == "train":
        configs = [get_task(KINDS[word][0]).config] if word else [RunConfig]
        return {"--config", "--import", "--help", "--task"}.union(*(keys(as_plain(config())) for config in configs))
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        importlib.import_module(f"pointmix.commands.{name}").main(["--help"])
    found = set(re.findall(r"--[a-z][\w.-]*", shown.getvalue()))
    data = {key for config in configs for key in keys(as_plain(config()))}
    return found | (data if name == "ablate" else {key for key in data if key.startswith("--data.")})


@pytest.mark.parametrize("files", [PAGES, RECIPES, MODULES], ids=["pages", "recipes", "help"])
def test_flags_and_recipes_exist(files: list[Path]) -> None:
    count = 0
    for file in files:
        for name, words in commands(file):
            count += 1
            where = f"{file.relative_to(ROOT)}: {name} {' '.join(words)}"
            given = {KWARGS.sub(r"\1", word.partition("=")[0]) for word in words if word.startswith("--")}
            assert given <= flags(name), f"{where} has no {', '.join(sorted(given - flags(name)))}"
            for before, recipe in zip(words, words[1:], strict=False):
                if before in ("--config", "--base") and "$" not in recipe and recipe not in OWN:
                    assert find(recipe).is_file(), where
    assert count > 10
