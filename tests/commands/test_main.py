"""The command `pointmix`: its words, what it says of itself, and which message names which command."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pointmix
from pointmix.commands.main import COMMANDS, main
from pointmix.commands.typed import described, typed

ROOT = Path(__file__).parents[2]


def test_each_word_is_a_module_and_each_module_a_word() -> None:
    modules = {file.stem for file in (ROOT / "pointmix" / "commands").glob("*.py")} - {"__init__", "main", "typed"}
    assert modules == COMMANDS.keys()
    for word in COMMANDS:
        module = importlib.import_module(f"pointmix.commands.{word}")
        assert f"\npointmix {word}" in module.__doc__, f"the help of {word} has no example"
        assert inspect.signature(module.main).parameters["prog"].default == f"pointmix {word}"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["-h"], ["--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: pointmix COMMAND") and all(f"\n  {word} " in out for word in COMMANDS)
        assert max(map(len, out.splitlines())) <= 100
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pointmix {pointmix.__version__}\n"


def test_a_wrong_word_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    expected = ", ".join(COMMANDS)
    assert capsys.readouterr().err == f"error: pointmix has no command 'trian', expected one of {expected}\n"


def test_as_a_module_and_as_a_script(tmp_path: Path) -> None:
    """Messages start with what was typed."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    def err(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    assert "error: python -m pointmix has no command 'no'" in err("-m", "pointmix", "no")
    script = str(ROOT / "scripts" / "train_image.py")
    expected = (
        "error: segment/camvid is a recipe of python scripts/train_segment.py, not of python scripts/train_image.py"
    )
    assert expected in err(script, "--config=segment/camvid")


@pytest.mark.parametrize("word", [word for word in COMMANDS if word not in ("train", "recipes")])
def test_help_shows_the_command_that_was_typed(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"pointmix.commands.{word}")
    for prog, line in ((f"pointmix {word}", f"pointmix {word} "), (f"{word}.py", f"python scripts/{word}.py ")):
        with pytest.raises(SystemExit, match="0"):
            module.main(["--help"], prog=prog)
        out = capsys.readouterr().out
        assert out.startswith(f"usage: {prog} ") and f"\n{line}" in out


def test_examples_are_told_as_typed() -> None:
    doc = "Explain.\n\npointmix explain a.png\ntorchrun -m pointmix explain a.png\n"
    assert typed("pointmix explain") == "pointmix explain" and typed("explain.py") == "python scripts/explain.py"
    assert described(doc, "pointmix explain", "explain.py").splitlines()[2:] == [
        "python scripts/explain.py a.png",
        "torchrun -m pointmix explain a.png",
    ]
