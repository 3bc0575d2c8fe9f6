"""The commands, called in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str) -> Callable[[list[str]], int]:
    """The function `main` of a script, which takes its flags and returns the exit code."""
    spec = importlib.util.spec_from_file_location(f"outside_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main
