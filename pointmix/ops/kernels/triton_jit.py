"""Functions that Triton compiles."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import triton
from triton.runtime import KernelInterface


def jit(function: Callable[..., object]) -> KernelInterface:
    """`triton.jit`, without the run-time shape checks of the tests, which Triton cannot compile."""
    return triton.jit(unwrap(function))
