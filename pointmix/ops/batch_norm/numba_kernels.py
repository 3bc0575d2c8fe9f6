"""Passes of `batch_norm_relu` over the rows, compiled by numba; a task is a few rows, which fit the cache of a core.

Rows are float32, float64 or the bits of bfloat16, and what there is for each channel is float32 or float64. Results
are never written where an argument lies: LLVM would not compile such loops to vector instructions.
"""

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

MOMENTS, NORMALIZE, SUMS, GRADIENT = range(4)
SIZES = 6  # phase, rows, channels, rows of a task, whether there is a residual, counter of the tasks taken
ARRAYS = "x y plus dy g dx mean scale shift outer sums".split()  # after the sizes


@inlined
def moments(x: Float[ndarray, "P C"], mean: Float[ndarray, "C"], square: Float[ndarray, "C"]) -> None:
    """The mean of each channel, and the sum of the squared differences from it."""
    rows, channels = x.shape
    mean[:] = 0
    square[:] = 0
    for n in range(rows):
        for c in range(channels):
            mean[c] += widen(x[n, c])
    for c in range(channels):
        mean[c] /= mean.dtype.type(rows)
    for n in range(rows):
        for c in range(channels):
            d = widen(x[n, c]) - mean[c]
            square[c] += d * d


@inlined
def normalize(
    x: Float[ndarray, "P C"], scale: Float[ndarray, "C"], shift: Float[ndarray, "C"], y: Float[ndarray, "P C"]
) -> None:
    """y = relu(scale x + shift); NaN stays."""
    zero = scale.dtype.type(0)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            a = scale[c] * widen(x[n, c]) + shift[c]
            y[n, c] = narrow(zero if a <= zero else a, y[n, c])


@inlined
def normalize_plus(
    x: Float[ndarray, "P C"], scale: Float[ndarray, "C"], shift: Float[ndarray, "C"], plus: Float[ndarray, "P C"],
    y: Float[ndarray, "P C"],
) -> None:  # fmt: skip
    """y = relu(scale x + shift + plus); NaN stays."""
    zero = scale.dtype.type(0)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            a = scale[c] * widen(x[n, c]) + shift[c] + widen(plus[n, c])
            y[n, c] = narrow(zero if a <= zero else a, y[n, c])


@inlined
def sums_backward(
    x: Float[ndarray, "P C"], y: Float[ndarray, "P C"], dy: Float[ndarray, "P C"], mean: Float[ndarray, "C"],
    g: Float[ndarray, "P C"], total: Float[ndarray, "C"], along: Float[ndarray, "C"],
) -> None:  # fmt: skip
    """g = dy where y is positive, the sum of g over the rows, and that of g (x - mean)."""
    zero = mean.dtype.type(0)
    total[:] = 0
    along[:] = 0
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            g[n, c] = narrow(zero if widen(y[n, c]) <= zero else widen(dy[n, c]), g[n, c])
        for c in range(x.shape[1]):
            d = widen(g[n, c])
            total[c] += d
            along[c] += d * (widen(x[n, c]) - mean[c])


@inlined
def gradient(
    x: Float[ndarray, "P C"], g: Float[ndarray, "P C"], mean: Float[ndarray, "C"], shift: Float[ndarray, "C"],
    scale: Float[ndarray, "C"], outer: Float[ndarray, "C"], dx: Float[ndarray, "P C"],
) -> None:  # fmt: skip
    """dx = outer (g - shift - scale (x - mean))"""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            d = widen(g[n, c]) - shift[c] - scale[c] * (widen(x[n, c]) - mean[c])
            dx[n, c] = narrow(outer[c] * d, dx[n, c])


def work_for(stored: type, numbers: type) -> Callable:
    """A function for numba to compile, which each thread runs until all tasks are done.

    It takes a pointer to the addresses of the sizes and of the `ARRAYS`.

    Args:
        stored: dtype of rows; uint16 for the bits of bfloat16.
        numbers: dtype of what there is for each channel.
    """

    def work(at) -> None:
        sizes = carray(at[0], (SIZES,), np.int64)
        phase, N, C, step, has_plus, _ = sizes
        tasks = (N + step - 1) // step
        x, y, plus = carray(at[1], (N, C), stored), carray(at[2], (N, C), stored), carray(at[3], (N, C), stored)
        dy, g, dx = carray(at[4], (N, C), stored), carray(at[5], (N, C), stored), carray(at[6], (N, C), stored)
        mean, scale = carray(at[7], (C,), numbers), carray(at[8], (C,), numbers)
        shift, outer = carray(at[9], (C,), numbers), carray(at[10], (C,), numbers)
        sums = carray(at[11], (tasks, 2, C), numbers)
        while True:
            task = fetch_add(sizes[SIZES - 1 :])
            if task >= tasks:
                break
            a, b = task * step, min((task + 1) * step, N)
            if phase == MOMENTS:
                moments(x[a:b], sums[task, 0], sums[task, 1])
            elif phase == NORMALIZE and has_plus:
                normalize_plus(x[a:b], scale, shift, plus[a:b], y[a:b])
            elif phase == NORMALIZE:
                normalize(x[a:b], scale, shift, y[a:b])
            elif phase == SUMS:
                sums_backward(x[a:b], y[a:b], dy[a:b], mean, g[a:b], sums[task, 0], sums[task, 1])
            else:
                gradient(x[a:b], g[a:b], mean, shift, scale, outer, dx[a:b])

    return unwrap(work)
