"""`batch_norm_relu` and its gradient on blocks of rows, compiled by numba.

Sums are formed for each block, so that they depend neither on the number of threads nor on their order.
"""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray, njit, types
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add

_njit = njit(error_model="numpy", fastmath={"contract", "nsz"}, forceinline=True)
MOMENTS, FORWARD, SUMS, BACKWARD = range(4)
SIZES = 6  # phase, rows, channels, rows of a block, whether there is a residual connection, counter of the blocks taken
ARRAYS = "x mean scale bias plus y sums dy dplus shift slope dx".split()  # after the sizes
SIGNATURE = types.void(types.CPointer(types.voidptr))


def compiled(function: Callable) -> Callable:
    return _njit(unwrap(function))


@compiled
def moments(x: Float[ndarray, "R C"], sums: Float[ndarray, "2 C"]) -> None:
    """Means, and sums of squared differences from them."""
    rows, channels = x.shape
    sums[:] = 0
    for n in range(rows):
        for c in range(channels):
            sums[0, c] += x[n, c]
    for c in range(channels):
        sums[0, c] /= x.dtype.type(rows)
    for n in range(rows):
        for c in range(channels):
            d = x[n, c] - sums[0, c]
            sums[1, c] += d * d


@compiled
def forward(
    x: Float[ndarray, "R C"], mean: Float[ndarray, "C"], scale: Float[ndarray, "C"], bias: Float[ndarray, "C"],
    plus: Float[ndarray, "R C"], residual: bool, y: Float[ndarray, "R C"],
) -> None:  # fmt: skip
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        if residual:
            for c in range(x.shape[1]):
                z = (x[n, c] - mean[c]) * scale[c] + bias[c] + plus[n, c]
                y[n, c] = zero if z <= zero else z  # NaN stays
        else:
            for c in range(x.shape[1]):
                z = (x[n, c] - mean[c]) * scale[c] + bias[c]
                y[n, c] = zero if z <= zero else z


@compiled
def gradient_sums(
    x: Float[ndarray, "R C"], mean: Float[ndarray, "C"], scale: Float[ndarray, "C"], bias: Float[ndarray, "C"],
    y: Float[ndarray, "R C"], residual: bool, dy: Float[ndarray, "R C"], dplus: Float[ndarray, "R C"],
    sums: Float[ndarray, "2 C"],
) -> None:  # fmt: skip
    """Sums of dz and of dz (x - mean), where dz is the gradient before the ReLU; with a residual connection also dz."""
    zero = x.dtype.type(0)
    sums[:] = 0
    for n in range(x.shape[0]):
        if residual:
            for c in range(x.shape[1]):
                dz = zero if y[n, c] <= zero else dy[n, c]
                dplus[n, c] = dz
                sums[0, c] += dz
                sums[1, c] += dz * (x[n, c] - mean[c])
        else:
            for c in range(x.shape[1]):
                d = x[n, c] - mean[c]
                dz = zero if d * scale[c] + bias[c] <= zero else dy[n, c]
                sums[0, c] += dz
                sums[1, c] += dz * d


@compiled
def backward(
    x: Float[ndarray, "R C"], mean: Float[ndarray, "C"], scale: Float[ndarray, "C"], bias: Float[ndarray, "C"],
    residual: bool, dy: Float[ndarray, "R C"], dplus: Float[ndarray, "R C"], shift: Float[ndarray, "C"],
    slope: Float[ndarray, "C"], dx: Float[ndarray, "R C"],
) -> None:  # fmt: skip
    """dx = scale dz - shift - slope (x - mean)."""
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        if residual:
            for c in range(x.shape[1]):
                dx[n, c] = scale[c] * dplus[n, c] - shift[c] - slope[c] * (x[n, c] - mean[c])
        else:
            for c in range(x.shape[1]):
                d = x[n, c] - mean[c]
                dz = zero if d * scale[c] + bias[c] <= zero else dy[n, c]
                dx[n, c] = scale[c] * dz - shift[c] - slope[c] * d


def work_for(dtype: type[np.floating]) -> Callable:
    """A function for numba to compile, which each thread runs until all blocks are done.

    It takes a pointer to the addresses of the sizes and of the `ARRAYS`, all of this dtype.
    """

    def work(at) -> None:
        sizes = carray(at[0], (SIZES,), np.int64)
        phase, N, C, step, residual, _ = sizes
        blocks = (N + step - 1) // step
        x, mean = carray(at[1], (N, C), dtype), carray(at[2], (C,), dtype)
        scale, bias = carray(at[3], (C,), dtype), carray(at[4], (C,), dtype)
        plus, y = carray(at[5], (N, C), dtype), carray(at[6], (N, C), dtype)
        sums, dy = carray(at[7], (blocks, 2, C), dtype), carray(at[8], (N, C), dtype)
        dplus, shift = carray(at[9], (N, C), dtype), carray(at[10], (C,), dtype)
        slope, dx = carray(at[11], (C,), dtype), carray(at[12], (N, C), dtype)
        while True:
            b = fetch_add(sizes[SIZES - 1 :])
            if b >= blocks:
                break
            r, has = slice(b * step, min((b + 1) * step, N)), residual != 0
            if phase == MOMENTS:
                moments(x[r], sums[b])
            elif phase == FORWARD:
                forward(x[r], mean, scale, bias, plus[r], has, y[r])
            elif phase == SUMS:
                gradient_sums(x[r], mean, scale, bias, y[r], has, dy[r], dplus[r], sums[b])
            else:
                backward(x[r], mean, scale, bias, has, dy[r], dplus[r], shift, slope, dx[r])

    return unwrap(work)
