"""Differences of neighbors and anchors, and their gradients, without writing what is gathered; compiled by numba.

A task is a range of groups, or, where gradients of neighbors are added up, a range of channels: results depend neither
on the number of threads nor on their order.
"""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float, Int
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined_sums

ROWS, ROWS_BACKWARD, SPREAD, SPREAD_BACKWARD = range(4)
GROUPS, CHANNELS = 8, 32  # of a task
SIZES = 6  # phase, points, groups, neighbors, channels, counter of the tasks taken
ARRAYS = "near anchor u t scale x dx du dt dscale parts dparts".split()  # after the sizes


@inlined_sums
def rows(
    i: int, near: Int[ndarray, "S k"], anchor: Int[ndarray, "S"], u: Float[ndarray, "N C"], t: Float[ndarray, "S C"],
    scale: Float[ndarray, "S"], x: Float[ndarray, "S k C"],
) -> None:  # fmt: skip
    """x_n = t_i + scale_i (u_n - u_i) of group i."""
    center, shift, by = u[anchor[i]], t[i], scale[i]
    for n in range(near.shape[1]):
        at, out = u[near[i, n]], x[i, n]
        for c in range(len(shift)):
            out[c] = shift[c] + by * (at[c] - center[c])


@inlined_sums
def rows_backward(
    i: int, first: int, last: int, near: Int[ndarray, "S k"], anchor: Int[ndarray, "S"], u: Float[ndarray, "N C"],
    scale: Float[ndarray, "S"], dx: Float[ndarray, "S k C"], du: Float[ndarray, "N C"], dt: Float[ndarray, "S C"],
) -> float:  # fmt: skip
    """Gradients of `rows` in some channels; returns that of scale_i."""
    center, by, dot = u[anchor[i], first:last], scale[i], u.dtype.type(0)
    dshift, dcenter = dt[i, first:last], du[anchor[i], first:last]
    dshift[:] = 0
    for n in range(near.shape[1]):
        at, g, d = u[near[i, n], first:last], dx[i, n, first:last], du[near[i, n], first:last]
        for c in range(last - first):
            dot += g[c] * (at[c] - center[c])
        for c in range(last - first):  # a loop that sums must not write, see `inlined_sums`
            dshift[c] += g[c]
            d[c] += by * g[c]
    for c in range(last - first):
        dcenter[c] -= by * dshift[c]
    return dot


@inlined_sums
def spread(
    i: int, near: Int[ndarray, "S k"], anchor: Int[ndarray, "S"], u: Float[ndarray, "N C"], parts: Float[ndarray, "S 2"]
) -> None:
    """Sums of the differences of group i, and of their squares."""
    center, zero = u[anchor[i]], u.dtype.type(0)
    parts[i, 0] = parts[i, 1] = zero
    for n in range(near.shape[1]):
        at, total, square = u[near[i, n]], zero, zero
        for c in range(len(center)):
            d = at[c] - center[c]
            total += d
            square += d * d
        parts[i, 0] += total
        parts[i, 1] += square


@inlined_sums
def spread_backward(
    i: int, first: int, last: int, near: Int[ndarray, "S k"], anchor: Int[ndarray, "S"], u: Float[ndarray, "N C"],
    dparts: Float[ndarray, "S 2"], du: Float[ndarray, "N C"], total: Float[ndarray, "_"],
) -> None:  # fmt: skip
    """Gradients of `spread` in some channels."""
    center, dcenter = u[anchor[i], first:last], du[anchor[i], first:last]
    shift, by = dparts[i, 0], 2 * dparts[i, 1]
    total[:] = 0
    for n in range(near.shape[1]):
        at, d = u[near[i, n], first:last], du[near[i, n], first:last]
        for c in range(last - first):
            g = shift + by * (at[c] - center[c])
            total[c] += g
            d[c] += g
    for c in range(last - first):
        dcenter[c] -= total[c]


def work_for(dtype: type[np.floating]) -> Callable:
    """A function for numba to compile, which each thread runs until all tasks are done.

    It takes a pointer to the addresses of the sizes and of the `ARRAYS`: near and anchor int64, all others this dtype.
    """

    def work(at) -> None:
        sizes = carray(at[0], (SIZES,), np.int64)
        phase, N, S, k, C, _ = sizes
        slabs = (C + CHANNELS - 1) // CHANNELS
        tasks = (S + GROUPS - 1) // GROUPS if phase == ROWS or phase == SPREAD else slabs
        near, anchor = carray(at[1], (S, k), np.int64), carray(at[2], (S,), np.int64)
        u, t, scale = carray(at[3], (N, C), dtype), carray(at[4], (S, C), dtype), carray(at[5], (S,), dtype)
        x, dx, du = carray(at[6], (S, k, C), dtype), carray(at[7], (S, k, C), dtype), carray(at[8], (N, C), dtype)
        dt, dscale = carray(at[9], (S, C), dtype), carray(at[10], (slabs, S), dtype)
        parts, dparts = carray(at[11], (S, 2), dtype), carray(at[12], (S, 2), dtype)
        total = np.empty(CHANNELS, dtype)
        while True:
            task = fetch_add(sizes[SIZES - 1 :])
            if task >= tasks:
                break
            first, last = task * CHANNELS, min((task + 1) * CHANNELS, C)
            if phase == ROWS:
                for i in range(task * GROUPS, min((task + 1) * GROUPS, S)):
                    rows(i, near, anchor, u, t, scale, x)
            elif phase == SPREAD:
                for i in range(task * GROUPS, min((task + 1) * GROUPS, S)):
                    spread(i, near, anchor, u, parts)
            elif phase == ROWS_BACKWARD:
                du[:, first:last] = 0
                for i in range(S):
                    dscale[task, i] = rows_backward(i, first, last, near, anchor, u, scale, dx, du, dt)
            else:
                du[:, first:last] = 0
                for i in range(S):
                    spread_backward(i, first, last, near, anchor, u, dparts, du, total)

    return unwrap(work)
