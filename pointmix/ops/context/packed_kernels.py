"""Context clustering of packed windows and its gradients, one window after the other, compiled by numba.

Points (N, ...) lie window by window, those of window s from ptr[s] to ptr[s + 1]. Tensors of points have their own
dtype, bfloat16 as its bits; all others, and all sums, are float32, or float64 if the points are.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numba import carray, njit, types
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen

# as in `numba_kernels`: sums in any order, but the same in all processes, and NaN is kept
_njit = njit(error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}, forceinline=True)
POOL, POOL_BACKWARD, JOIN, JOIN_BACKWARD, DISPATCH, DISPATCH_BACKWARD = range(6)


def compiled(function: Callable) -> Callable:
    return _njit(unwrap(function))


class Sizes(ctypes.Structure):
    """The phase to run; numbers of points, windows, centers, heads and channels; whether points enter the sums with
    weight one; how many windows to take at a time, and a counter of those chunks."""

    _fields_ = [(name, ctypes.c_int64) for name in "phase N S M E C unweighted step counter".split()]


class Arrays(ctypes.Structure):
    """Addresses of `Sizes` and of contiguous arrays: ptr int64, center int32, members and exists bool. x, size, out and
    their gradients have the dtype of the points."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "sizes ptr members exists x size out center weight alpha beta mean key offset y total count p bias "
            "dx dsize dout dweight dscalars dmean dkey doffset dy dtotal dp dbias"
        ).split()
    ]


@compiled
def pool(
    s: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], x: Shaped[ndarray, "N C"],
    mean: Float[ndarray, "S M C"],
) -> None:  # fmt: skip
    """Mean features of a window's points around each center, zero where there are none."""
    _, centers, channels = mean.shape
    for m in range(centers):
        count = 0
        for k in range(channels):
            mean[s, m, k] = 0
        for n in range(ptr[s], ptr[s + 1]):
            if members[n, m]:
                count += 1
                for k in range(channels):
                    mean[s, m, k] += widen(x[n, k])
        scale = 1 / mean.dtype.type(max(count, 1))
        for k in range(channels):
            mean[s, m, k] *= scale


@compiled
def pool_backward(
    s: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], dmean: Float[ndarray, "S M C"],
    dx: Shaped[ndarray, "N C"],
) -> None:  # fmt: skip
    _, centers, channels = dmean.shape
    share, row = np.empty((centers, channels), dmean.dtype), np.empty(channels, dmean.dtype)
    for m in range(centers):
        count = 0
        for n in range(ptr[s], ptr[s + 1]):
            count += members[n, m]
        scale = 1 / dmean.dtype.type(max(count, 1))
        for k in range(channels):
            share[m, k] = dmean[s, m, k] * scale
    for n in range(ptr[s], ptr[s + 1]):
        row[:] = 0
        for m in range(centers):
            if members[n, m]:
                for k in range(channels):
                    row[k] += share[m, k]
        for k in range(channels):
            dx[n, k] = narrow(row[k], dx[n, k])


@compiled
def join(
    s: int, ptr: Int[ndarray, "S1"], exists: Bool[ndarray, "S M"], alpha: float, beta: float, unweighted: bool,
    x: Shaped[ndarray, "N C"], size: Shaped[ndarray, "N E"], mean: Float[ndarray, "S M C"],
    key: Float[ndarray, "E S M C"], offset: Float[ndarray, "S M E"], center: Int[ndarray, "N E"],
    weight: Float[ndarray, "N E"], y: Float[ndarray, "E S M C"], total: Float[ndarray, "E S M"],
    count: Float[ndarray, "E S M"],
) -> None:  # fmt: skip
    """The center that each point joins, the first of equals, its weight there, and the sums at the centers."""
    heads, _, centers, channels = key.shape
    row, one, bound = np.empty(channels, key.dtype), key.dtype.type(1), abs(alpha)
    for e in range(heads):
        for m in range(centers):
            total[e, s, m] = count[e, s, m] = one
            for k in range(channels):
                y[e, s, m, k] = mean[s, m, k]
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k] = widen(x[n, k])
        for e in range(heads):
            best, at = key.dtype.type(-np.inf), 0
            for m in range(centers):
                if exists[s, m]:
                    near = offset[s, m, e]
                    for k in range(channels):
                        near += row[k] * key[e, s, m, k]
                    if near > best or near != near:  # NaN must not be lost
                        best, at = near, m
            cosine = best / widen(size[n, e])
            cosine = bound if cosine > bound else -bound if cosine < -bound else cosine
            a = one / (one + math.exp(-(cosine + beta)))
            entry = one if unweighted else a
            center[n, e], weight[n, e] = at, a
            total[e, s, at] += entry
            count[e, s, at] += one
            for k in range(channels):
                y[e, s, at, k] += entry * row[k]


@compiled
def join_backward(
    s: int, ptr: Int[ndarray, "S1"], alpha: float, unweighted: bool, x: Shaped[ndarray, "N C"],
    size: Shaped[ndarray, "N E"], key: Float[ndarray, "E S M C"], offset: Float[ndarray, "S M E"],
    center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"], dy: Float[ndarray, "E S M C"],
    dtotal: Float[ndarray, "E S M"], dweight: Float[ndarray, "N E"], dx: Shaped[ndarray, "N C"],
    dsize: Shaped[ndarray, "N E"], dmean: Float[ndarray, "S M C"], dkey: Float[ndarray, "E S M C"],
    doffset: Float[ndarray, "S M E"], dscalars: Float[ndarray, "S 2"],
) -> None:  # fmt: skip
    """`dscalars` are the window's parts of the gradients of |alpha|, where it bounds the cosine, and beta."""
    heads, _, centers, channels = key.shape
    row, drow = np.empty(channels, key.dtype), np.empty(channels, key.dtype)
    one, bound, dbound, dbeta = key.dtype.type(1), abs(alpha), key.dtype.type(0), key.dtype.type(0)
    for m in range(centers):
        dmean[s, m, :] = 0
        for e in range(heads):
            doffset[s, m, e] = 0
            for k in range(channels):
                dmean[s, m, k] += dy[e, s, m, k]
                dkey[e, s, m, k] = 0
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k], drow[k] = widen(x[n, k]), 0
        for e in range(heads):
            m, a, length = center[n, e], weight[n, e], widen(size[n, e])
            near, da = offset[s, m, e], dtotal[e, s, m]
            for k in range(channels):
                near += row[k] * key[e, s, m, k]
                da += row[k] * dy[e, s, m, k]
            entry = one if unweighted else a
            dz = (dweight[n, e] + (one - one if unweighted else da)) * a * (one - a)
            dbeta += dz
            cosine, dnear = near / length, dz / length
            if cosine > bound:
                dbound, dnear = dbound + dz, one - one
            elif cosine < -bound:
                dbound, dnear = dbound - dz, one - one
            dsize[n, e] = narrow(-dnear * cosine, dsize[n, e])
            doffset[s, m, e] += dnear
            for k in range(channels):
                drow[k] += entry * dy[e, s, m, k] + dnear * key[e, s, m, k]
                dkey[e, s, m, k] += dnear * row[k]
        for k in range(channels):
            dx[n, k] = narrow(drow[k], dx[n, k])
    dscalars[s, 0], dscalars[s, 1] = dbound, dbeta


@compiled
def dispatch(
    s: int, ptr: Int[ndarray, "S1"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    p: Float[ndarray, "E S M K"], bias: Float[ndarray, "K"], out: Shaped[ndarray, "N K"],
) -> None:  # fmt: skip
    """The weighted sum over the centers of each point of a window, plus the bias."""
    row = np.empty(len(bias), bias.dtype)
    for n in range(ptr[s], ptr[s + 1]):
        row[:] = bias
        for e in range(len(p)):
            m, a = center[n, e], weight[n, e]
            for k in range(len(bias)):
                row[k] += a * p[e, s, m, k]
        for k in range(len(bias)):
            out[n, k] = narrow(row[k], out[n, k])


@compiled
def dispatch_backward(
    s: int, ptr: Int[ndarray, "S1"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    p: Float[ndarray, "E S M K"], dout: Shaped[ndarray, "N K"], dweight: Float[ndarray, "N E"],
    dp: Float[ndarray, "E S M K"], dbias: Float[ndarray, "S K"],
) -> None:  # fmt: skip
    heads, _, centers, channels = p.shape
    row = np.empty(channels, p.dtype)
    dbias[s, :] = 0
    for e in range(heads):
        dp[e, s, :, :] = 0
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k] = widen(dout[n, k])
            dbias[s, k] += row[k]
        for e in range(heads):
            m, a, da = center[n, e], weight[n, e], p.dtype.type(0)
            for k in range(channels):
                da += row[k] * p[e, s, m, k]
                dp[e, s, m, k] += a * row[k]
            dweight[n, e] = da


def work_for(dtype: type, wide: type) -> Callable:
    """A function for numba to compile, which each thread runs until all windows are done.

    It takes a pointer to `Arrays`.

    Args:
        dtype: of the points: float32, float64, or uint16 for the bits of bfloat16.
        wide: of all others, float32 or float64.
    """
    fields = len(Sizes._fields_)

    def work(at) -> None:  # addresses in the order of `Arrays`
        sizes = carray(at[0], (fields,), np.int64)
        phase, N, S, M, E, C, unweighted, step, _ = sizes
        ptr = carray(at[1], (S + 1,), np.int64)
        members, exists = carray(at[2], (N, M), np.bool_), carray(at[3], (S, M), np.bool_)
        x, size, out = carray(at[4], (N, C), dtype), carray(at[5], (N, E), dtype), carray(at[6], (N, C), dtype)
        center, weight = carray(at[7], (N, E), np.int32), carray(at[8], (N, E), wide)
        alpha, beta, mean = carray(at[9], (1,), wide), carray(at[10], (1,), wide), carray(at[11], (S, M, C), wide)
        key, offset, y = (carray(at[12], (E, S, M, C), wide), carray(at[13], (S, M, E), wide),
                          carray(at[14], (E, S, M, C), wide))  # fmt: skip
        total, count = carray(at[15], (E, S, M), wide), carray(at[16], (E, S, M), wide)
        p, bias = carray(at[17], (E, S, M, C), wide), carray(at[18], (C,), wide)
        dx, dsize, dout = carray(at[19], (N, C), dtype), carray(at[20], (N, E), dtype), carray(at[21], (N, C), dtype)
        dweight, dscalars, dmean = carray(at[22], (N, E), wide), carray(at[23], (S, 2), wide), carray(at[24], (S, M, C), wide)
        dkey, doffset, dy = carray(at[25], (E, S, M, C), wide), carray(at[26], (S, M, E), wide), carray(at[27], (E, S, M, C), wide)
        dtotal, dp, dbias = carray(at[28], (E, S, M), wide), carray(at[29], (E, S, M, C), wide), carray(at[30], (S, C), wide)
        while True:
            start = fetch_add(sizes[fields - 1 :]) * step
            for s in range(start, min(start + step, S)):
                if phase == POOL:
                    pool(s, ptr, members, x, mean)
                elif phase == POOL_BACKWARD:
                    pool_backward(s, ptr, members, dmean, dx)
                elif phase == JOIN:
                    join(s, ptr, exists, alpha[0], beta[0], unweighted != 0, x, size, mean, key, offset, center, weight, y, total, count)
                elif phase == JOIN_BACKWARD:
                    join_backward(s, ptr, alpha[0], unweighted != 0, x, size, key, offset, center, weight, dy, dtotal, dweight, dx, dsize, dmean, dkey, doffset, dscalars)
                elif phase == DISPATCH:
                    dispatch(s, ptr, center, weight, p, bias, out)
                else:
                    dispatch_backward(s, ptr, center, weight, p, dout, dweight, dp, dbias)
            if start + step >= S:
                break

    return unwrap(work)


SIGNATURE = types.void(types.CPointer(types.voidptr))
