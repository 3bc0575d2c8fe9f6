"""Annotations of the package, shapes and dtypes among them, checked at run time: jaxtyping's import hook with beartype.

Enabled with POINTMIX_CHECK_SHAPES=1. tests/test_shapes.py runs a quick selection of the tests with it.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
from jaxtyping import Shaped, install_import_hook

ROOT = Path(__file__).parents[1]

# Not checked: modules of functions that numba or Triton compile from their source, where a wrapper cannot be compiled.
COMPILED = re.compile(r"^\s*@(\w+\.)*(compiled|inlined|inlined_sums|njit|jit|intrinsic)\b", re.MULTILINE)


def checked_modules() -> list[str]:
    """Names of the modules of the package whose annotations are checked."""
    files = [f for f in sorted((ROOT / "pointmix").rglob("*.py")) if f.name != "__init__.py"]
    files = [f for f in files if not COMPILED.search(f.read_text(encoding="utf-8"))]
    return [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]


def install(modules: list[str]) -> None:
    """Check the annotations of these modules from their import on."""
    install_import_hook(modules, "tests.shapes.check")


def select(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests that can run with checked annotations, each with its first and its last parameters.

    Tests that expect an error pass arguments that the annotations rule out, and torch.compile and torch.export cannot
    trace beartype.
    """
    functions: dict[Callable, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(item.function, []).append(item)
    kept: set[pytest.Item] = set()
    for function, variants in functions.items():
        if not any(word in inspect.getsource(function) for word in ("raises(", "compile", "export")):
            kept.update((variants[0], variants[-1]))
    return [item for item in items if item in kept]


def bind(hint: Any, value: Any) -> None:
    """Make B known to jaxtyping where a parameter of length "B+1" is given, which it cannot solve for B by itself."""
    if match := re.fullmatch(r"(\w+)\+1", getattr(hint, "dim_str", "")):
        if getattr(value, "ndim", 1) == 1 and hasattr(value, "__len__") and len(value):
            isinstance(np.broadcast_to(0, len(value) - 1), Shaped[np.ndarray, match[1]])
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            bind(member, value)


def check(function: Callable) -> Callable:
    """The function, whose arguments are checked against its annotations; jaxtyping applies this to each signature."""
    from beartype import BeartypeConf, beartype

    checked = beartype(function, conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            bind(signature.parameters[name].annotation, value)
        return checked(*args, **kwargs)

    return call
