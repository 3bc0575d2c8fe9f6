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
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen
from pointmix.ops.kernels.jit import inlined_sums

POOL, JOIN, DISPATCH, DISPATCH_BACKWARD, JOIN_BACKWARD, POOL_BACKWARD = range(6)


class Sizes(ctypes.Structure):
    """The phase to run; the range of windows and how many to take at a time; numbers of points, windows, centers and
    heads; channels of heads, features and results; rules; and a counter of the chunks of windows taken."""

    _fields_ = [
        (name, ctypes.c_int64) for name in "phase first last step N S M E D C K count unweighted counter".split()
    ]


class Arrays(ctypes.Structure):
    """Addresses of `Sizes` and of contiguous arrays: ptr int64, center int32, members and exists bool, x, q, out and
    their gradients with the dtype of the points. q and dq hold those from the first point of the range on; they may be
    the same."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            "sizes ptr members exists alpha beta x q out center weight mean c y divisor bias_scale p bias "
            "dx dout dweight dmean dc dy dbias_scale dp dbias dbq dscalars dq"
        ).split()
    ]


@inlined_sums
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


@inlined_sums
def pool_backward(
    s: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], dmean: Float[ndarray, "S M C"],
    dx: Shaped[ndarray, "N C"],
) -> None:  # fmt: skip
    """Adds to dx."""
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
        for k in range(channels):
            row[k] = widen(dx[n, k])
        for m in range(centers):
            if members[n, m]:
                for k in range(channels):
                    row[k] += share[m, k]
        for k in range(channels):
            dx[n, k] = narrow(row[k], dx[n, k])


@inlined_sums
def units(
    s: int, c: Float[ndarray, "S M E D"], least: float, unit: Float[ndarray, "E M D"], inverse: Float[ndarray, "E M"]
) -> None:
    """The queries of a window's centers over their lengths, and one over those."""
    heads, centers, dim = unit.shape
    for m in range(centers):
        for e in range(heads):
            square = c.dtype.type(0)
            for d in range(dim):
                square += c[s, m, e, d] * c[s, m, e, d]
            inverse[e, m] = 1 / max(np.sqrt(square), least)
            for d in range(dim):
                unit[e, m, d] = c[s, m, e, d] * inverse[e, m]


@inlined_sums
def join(
    s: int, ptr: Int[ndarray, "S1"], exists: Bool[ndarray, "S M"], alpha: float, beta: float, least: float,
    by_count: bool, unweighted: bool, x: Shaped[ndarray, "N C"], q: Shaped[ndarray, "P E D"], begin: int,
    mean: Float[ndarray, "S M C"], c: Float[ndarray, "S M E D"], center: Int[ndarray, "N E"],
    weight: Float[ndarray, "N E"], y: Float[ndarray, "E S M C"], divisor: Float[ndarray, "E S M"],
    bias_scale: Float[ndarray, "E S M"],
) -> None:  # fmt: skip
    """The center that each point joins, the first of equals, its weight there, and what centers gather: their own
    features plus those of their points, over a divisor: one plus the sum or number of the weights.

    `bias_scale` is one plus the sum of the weights with which points entered, over the same divisor.
    """
    _, centers, heads, dim = c.shape
    channels, one = x.shape[1], c.dtype.type(1)
    row, query = np.empty(channels, c.dtype), np.empty(dim, c.dtype)
    unit, inverse = np.empty((heads, centers, dim), c.dtype), np.empty((heads, centers), c.dtype)
    units(s, c, least, unit, inverse)
    for e in range(heads):
        for m in range(centers):
            bias_scale[e, s, m] = divisor[e, s, m] = one
            for k in range(channels):
                y[e, s, m, k] = mean[s, m, k]
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k] = widen(x[n, k])
        for e in range(heads):
            square, best, at = c.dtype.type(0), c.dtype.type(-np.inf), 0
            for d in range(dim):
                query[d] = widen(q[n - begin, e, d])
            for d in range(dim):
                square += query[d] * query[d]
            for m in range(centers):
                if exists[s, m]:
                    near = c.dtype.type(0)
                    for d in range(dim):
                        near += query[d] * unit[e, m, d]
                    near *= alpha
                    if near > best or near != near:  # NaN must not be lost
                        best, at = near, m
            a = one / (one + math.exp(-(best / max(np.sqrt(square), least) + beta)))
            entry = one if unweighted else a
            center[n, e], weight[n, e] = at, a
            bias_scale[e, s, at] += entry
            divisor[e, s, at] += one if by_count else entry
            for k in range(channels):
                y[e, s, at, k] += entry * row[k]
    for e in range(heads):
        for m in range(centers):
            scale = one / divisor[e, s, m]
            bias_scale[e, s, m] *= scale
            for k in range(channels):
                y[e, s, m, k] *= scale


@inlined_sums
def join_backward(
    s: int, ptr: Int[ndarray, "S1"], alpha: float, least: float, by_count: bool, unweighted: bool,
    x: Shaped[ndarray, "N C"], q: Shaped[ndarray, "P E D"], begin: int, c: Float[ndarray, "S M E D"],
    center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"], y: Float[ndarray, "E S M C"],
    divisor: Float[ndarray, "E S M"], dy: Float[ndarray, "E S M C"], dbias_scale: Float[ndarray, "E S M"],
    dweight: Float[ndarray, "N E"], dx: Shaped[ndarray, "N C"], dmean: Float[ndarray, "S M C"],
    dc: Float[ndarray, "S M E D"], dbq: Float[ndarray, "S E D"], dscalars: Float[ndarray, "S 2"],
    dq: Shaped[ndarray, "P E D"],
) -> None:  # fmt: skip
    """dx lacks what passes through queries and mean. `dbq` and `dscalars`, for alpha and beta, are the window's parts
    of the sums."""
    _, centers, heads, dim = c.shape
    channels, zero, one = x.shape[1], c.dtype.type(0), c.dtype.type(1)
    row, drow, query = np.empty(channels, c.dtype), np.empty(channels, c.dtype), np.empty(dim, c.dtype)
    unit, inverse = np.empty((heads, centers, dim), c.dtype), np.empty((heads, centers), c.dtype)
    dunit, dtotal = np.zeros((heads, centers, dim), c.dtype), np.zeros((heads, centers), c.dtype)
    dsum = np.empty((heads, centers, channels), c.dtype)  # of the sum of the features
    dalpha = dbeta = zero
    units(s, c, least, unit, inverse)
    dbq[s, :, :] = 0
    dmean[s, :, :] = 0
    for e in range(heads):
        for m in range(centers):
            scale, product = one / divisor[e, s, m], zero
            for k in range(channels):
                product += dy[e, s, m, k] * y[e, s, m, k]
            for k in range(channels):
                dsum[e, m, k] = dy[e, s, m, k] * scale
                dmean[s, m, k] += dsum[e, m, k]
            if not unweighted:
                dtotal[e, m] = (dbias_scale[e, s, m] if by_count else -product) * scale
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k], drow[k] = widen(x[n, k]), zero
        for e in range(heads):
            m, a = center[n, e], weight[n, e]
            near = square = da = zero
            for d in range(dim):
                query[d] = widen(q[n - begin, e, d])
            for d in range(dim):
                square += query[d] * query[d]
                near += query[d] * unit[e, m, d]
            entry = one if unweighted else a
            for k in range(channels):
                da += row[k] * dsum[e, m, k]
            for k in range(channels):
                drow[k] += entry * dsum[e, m, k]
            dz = (dweight[n, e] + (zero if unweighted else da + dtotal[e, m])) * a * (one - a)
            length = max(np.sqrt(square), least)
            cosine, dnear = near / length, dz / length
            dalpha += dz * cosine
            dbeta += dz
            dnear *= alpha
            dself = -dnear * cosine / length if length > least else zero
            for d in range(dim):
                own = dnear * unit[e, m, d] + dself * query[d]
                dunit[e, m, d] += dnear * query[d]
                dbq[s, e, d] += own
                dq[n - begin, e, d] = narrow(own, dq[n - begin, e, d])
        for k in range(channels):
            dx[n, k] = narrow(drow[k], dx[n, k])
    for m in range(centers):
        for e in range(heads):
            along = zero
            for d in range(dim):
                along += dunit[e, m, d] * unit[e, m, d]
            along = along if inverse[e, m] * least < one else zero
            for d in range(dim):
                dc[s, m, e, d] = (dunit[e, m, d] - along * unit[e, m, d]) * inverse[e, m]
                dbq[s, e, d] += dc[s, m, e, d]
    dscalars[s, 0], dscalars[s, 1] = dalpha, dbeta


@inlined_sums
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


@inlined_sums
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
            for k in range(channels):
                dp[e, s, m, k] += a * row[k]
            dweight[n, e] = da


def work_for(dtype: type, wide: type, least: float) -> Callable:
    """A function for numba to compile, which each thread runs until all windows are done.

    It takes a pointer to `Arrays`.

    Args:
        dtype: of the points: float32, float64, or uint16 for the bits of bfloat16.
        wide: of all others, float32 or float64.
        least: lengths of vectors are at least this.
    """
    least, fields = wide(least), len(Sizes._fields_)

    def work(at) -> None:  # addresses in the order of `Arrays`
        sizes = carray(at[0], (fields,), np.int64)
        phase, first, last, step, N, S, M, E, D, C, K, count, unweighted, _ = sizes
        ptr = carray(at[1], (S + 1,), np.int64)
        members, exists = carray(at[2], (N, M), np.bool_), carray(at[3], (S, M), np.bool_)
        alpha, beta = carray(at[4], (1,), wide), carray(at[5], (1,), wide)
        begin = ptr[first]
        x, q, out = carray(at[6], (N, C), dtype), carray(at[7], (N, E, D), dtype), carray(at[8], (N, K), dtype)
        center, weight = carray(at[9], (N, E), np.int32), carray(at[10], (N, E), wide)
        mean, c = carray(at[11], (S, M, C), wide), carray(at[12], (S, M, E, D), wide)
        y, dy = carray(at[13], (E, S, M, C), wide), carray(at[23], (E, S, M, C), wide)
        divisor, bias_scale = carray(at[14], (E, S, M), wide), carray(at[15], (E, S, M), wide)
        p, bias = carray(at[16], (E, S, M, K), wide), carray(at[17], (K,), wide)
        dx, dout, dweight = carray(at[18], (N, C), dtype), carray(at[19], (N, K), dtype), carray(at[20], (N, E), wide)
        dmean, dc = carray(at[21], (S, M, C), wide), carray(at[22], (S, M, E, D), wide)
        dbias_scale, dp = carray(at[24], (E, S, M), wide), carray(at[25], (E, S, M, K), wide)
        dbias, dbq, dscalars = (
            carray(at[26], (S, K), wide),
            carray(at[27], (S, E, D), wide),
            carray(at[28], (S, 2), wide),
        )
        dq = carray(at[29], (N, E, D), dtype)
        by_count, unweighted = count != 0, unweighted != 0
        while True:
            start = first + fetch_add(sizes[fields - 1 :]) * step
            for s in range(start, min(start + step, last)):
                if phase == POOL:
                    pool(s, ptr, members, x, mean)
                elif phase == JOIN:
                    join(
                        s, ptr, exists, alpha[0], beta[0], least, by_count, unweighted, x, q, begin, mean, c, center,
                        weight, y, divisor, bias_scale,
                    )  # fmt: skip
                elif phase == DISPATCH:
                    dispatch(s, ptr, center, weight, p, bias, out)
                elif phase == DISPATCH_BACKWARD:
                    dispatch_backward(s, ptr, center, weight, p, dout, dweight, dp, dbias)
                elif phase == JOIN_BACKWARD:
                    join_backward(
                        s, ptr, alpha[0], least, by_count, unweighted, x, q, begin, c, center, weight, y, divisor, dy,
                        dbias_scale, dweight, dx, dmean, dc, dbq, dscalars, dq,
                    )  # fmt: skip
                else:
                    pool_backward(s, ptr, members, dmean, dx)
            if start + step >= last:
                break

    return unwrap(work)
