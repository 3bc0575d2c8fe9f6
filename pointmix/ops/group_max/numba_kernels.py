"""The maximum over each group of rows and its gradient, compiled by numba, one group after the other."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen
from pointmix.ops.kernels.jit import inlined

VALUES, GRADIENT = range(2)
SIZES = 5  # phase, groups, rows of a group, channels, counter of the groups taken
ARRAYS = "x y dy dx".split()  # after the sizes


@inlined
def values(x: Float[ndarray, "k C"], best: Float[ndarray, "C"], y: Float[ndarray, "C"]) -> None:
    """The maximum over k; NaN if there is one."""
    best[:] = -np.inf
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            value, old = widen(x[n, c]), best[c]
            better = (old == old) & ~(value <= old)
            best[c] = value if better else old
    for c in range(x.shape[1]):
        y[c] = narrow(best[c], y[c])


@inlined
def gradient(
    x: Float[ndarray, "k C"], y: Float[ndarray, "C"], dy: Float[ndarray, "C"], count: Float[ndarray, "C"],
    dx: Float[ndarray, "k C"],
) -> None:  # fmt: skip
    """dx_n = dy over the number of rows that equal y, for those."""
    zero, one = count.dtype.type(0), count.dtype.type(1)
    count[:] = 0
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            count[c] += one if widen(x[n, c]) == widen(y[c]) else zero
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            d = widen(dy[c]) if widen(x[n, c]) == widen(y[c]) else zero
            dx[n, c] = narrow(d / count[c], dx[n, c])


def work_for(stored: type, numbers: type) -> Callable:
    """A function for numba to compile, which each thread runs until all groups are done.

    It takes a pointer to the addresses of the sizes and of the `ARRAYS`.

    Args:
        stored: dtype of the arrays; uint16 for the bits of bfloat16.
        numbers: dtype of what is computed.
    """

    def work(at) -> None:
        sizes = carray(at[0], (SIZES,), np.int64)
        phase, G, k, C, _ = sizes
        x, y = carray(at[1], (G, k, C), stored), carray(at[2], (G, C), stored)
        dy, dx = carray(at[3], (G, C), stored), carray(at[4], (G, k, C), stored)
        room = np.empty(C, numbers)
        while True:
            g = fetch_add(sizes[SIZES - 1 :])
            if g >= G:
                break
            if phase == VALUES:
                values(x[g], room, y[g])
            else:
                gradient(x[g], y[g], dy[g], room, dx[g])

    return unwrap(work)
