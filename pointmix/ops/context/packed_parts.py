"""Parts of `packed_kernels`: of a window of points, and their gradients.

Points (N, ...) lie window by window, those of window s from ptr[s] to ptr[s + 1]. Tensors of points have their own
dtype, bfloat16 as its bits; all others, and all sums, are float32, or float64 if the points are. Tensors of centers
have room for the R windows of a tile, of which s is number i.
"""

# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from pointmix.ops.kernels.blas import NO, YES, sgemm
from pointmix.ops.kernels.intrinsics import narrow, widen
from pointmix.ops.kernels.jit import inlined, inlined_sums
from pointmix.ops.kernels.vector_math import SMALLEST, exp2

TILE = 1024  # points, at most, of the windows that a thread takes at a time, unless it is one window
ZERO, ONE = np.float32(0), np.float32(1)
LOG2_E = np.float32(math.log2(math.e))


@inlined
def multiply(
    gemm: int, a: Float[ndarray, "_ _"], b: Float[ndarray, "_ _"], transpose_a: bool, transpose_b: bool, add: bool,
    out: Float[ndarray, "P Q"],
) -> None:  # fmt: skip
    """out = a b, added to it if `add`; a or b is transposed first on request."""
    rows, columns = out.shape
    inner = a.shape[0] if transpose_a else a.shape[1]
    if gemm != 0:  # sgemm counts columns first, so it sees the transposed matrices
        sgemm(
            gemm, YES if transpose_b else NO, YES if transpose_a else NO, columns, rows, inner, b.ctypes.data,
            b.strides[0] // 4, a.ctypes.data, a.strides[0] // 4, ONE if add else ZERO, out.ctypes.data,
            out.strides[0] // 4,
        )  # fmt: skip
    else:
        for i in range(rows):
            if not add:
                out[i] = 0
            for k in range(inner):
                left = a[k, i] if transpose_a else a[i, k]
                for j in range(columns):
                    out[i, j] += left * (b[j, k] if transpose_b else b[k, j])


@inlined
def first_window(ptr: Int[ndarray, "S1"], first: int, last: int, part: int, parts: int) -> int:
    """The first window of a part of the range; parts have about as many points."""
    s, bound = first, ptr[first] + (ptr[last] - ptr[first]) * part // parts
    while s < last and (ptr[s] < bound or part == parts):
        s += 1
    return s


@inlined
def end_of_tile(ptr: Int[ndarray, "S1"], start: int, end: int, most: int) -> int:
    """The window after those to take at a time, from `start` on, `most` at most."""
    stop = start + 1
    while stop < min(end, start + most) and ptr[stop + 1] - ptr[start] <= TILE:
        stop += 1
    return stop


@inlined_sums
def pool(
    s: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], x: Shaped[ndarray, "N C"], i: int,
    mean: Float[ndarray, "R M C"],
) -> None:  # fmt: skip
    """Mean features of a window's points around each center, zero where there are none."""
    _, centers, channels = mean.shape
    for m in range(centers):
        count = 0
        for k in range(channels):
            mean[i, m, k] = 0
        for n in range(ptr[s], ptr[s + 1]):
            if members[n, m]:
                count += 1
                for k in range(channels):
                    mean[i, m, k] += widen(x[n, k])
        scale = 1 / mean.dtype.type(max(count, 1))
        for k in range(channels):
            mean[i, m, k] *= scale


@inlined_sums
def pool_backward(
    s: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], dmean: Float[ndarray, "M C"],
    dx: Shaped[ndarray, "N C"],
) -> None:  # fmt: skip
    """Adds to dx."""
    centers, channels = dmean.shape
    share, row = np.empty((centers, channels), dmean.dtype), np.empty(channels, dmean.dtype)
    for m in range(centers):
        count = 0
        for n in range(ptr[s], ptr[s + 1]):
            count += members[n, m]
        scale = 1 / dmean.dtype.type(max(count, 1))
        for k in range(channels):
            share[m, k] = dmean[m, k] * scale
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
    i: int, c: Float[ndarray, "R M E D"], least: float, unit: Float[ndarray, "E M D"], inverse: Float[ndarray, "E M"]
) -> None:
    """The queries of a window's centers over their lengths, and one over those."""
    heads, centers, dim = unit.shape
    for m in range(centers):
        for e in range(heads):
            square = c.dtype.type(0)
            for d in range(dim):
                square += c[i, m, e, d] * c[i, m, e, d]
            inverse[e, m] = 1 / max(np.sqrt(square), least)
            for d in range(dim):
                unit[e, m, d] = c[i, m, e, d] * inverse[e, m]


@inlined_sums
def nearest(
    s: int, ptr: Int[ndarray, "S1"], exists: Bool[ndarray, "S M"], alpha: float, least: float,
    q: Shaped[ndarray, "P E D"], begin: int, i: int, c: Float[ndarray, "R M E D"], center: Int[ndarray, "N E"],
    product: Float[ndarray, "N E"], square: Float[ndarray, "T E"], origin: int,
) -> None:  # fmt: skip
    """The center that each point joins, the first of equals; alpha times the product of the point's query and the
    center's unit vector; the squared length of the query."""
    _, centers, heads, dim = c.shape
    query = np.empty(dim, c.dtype)
    unit, inverse = np.empty((heads, centers, dim), c.dtype), np.empty((heads, centers), c.dtype)
    units(i, c, least, unit, inverse)
    for n in range(ptr[s], ptr[s + 1]):
        for e in range(heads):
            total, best, at = c.dtype.type(0), c.dtype.type(-np.inf), 0
            for d in range(dim):
                query[d] = widen(q[n - begin, e, d])
            for d in range(dim):
                total += query[d] * query[d]
            for m in range(centers):
                if exists[s, m]:
                    near = c.dtype.type(0)
                    for d in range(dim):
                        near += query[d] * unit[e, m, d]
                    near *= alpha
                    if near > best or near != near:  # NaN must not be lost
                        best, at = near, m
            center[n, e], product[n, e], square[n - origin, e] = at, best, total


@inlined
def weigh32(square: Float[ndarray, "P"], least: float, beta: float, weight: Float[ndarray, "P"]) -> None:
    """sigmoid(weight / length + beta) in place, of float32, in vector instructions."""
    for i in range(len(weight)):
        z = weight[i] / max(np.sqrt(square[i]), least) + beta
        a = ONE / (ONE + exp2(min(max(z * -LOG2_E, SMALLEST), -SMALLEST)))
        weight[i] = a if z == z else z


@inlined
def weigh64(square: Float[ndarray, "P"], least: float, beta: float, weight: Float[ndarray, "P"]) -> None:
    """`weigh32` of float64."""
    for i in range(len(weight)):
        weight[i] = 1 / (1 + math.exp(-(weight[i] / max(np.sqrt(square[i]), least) + beta)))


@inlined_sums
def gather(
    s: int, ptr: Int[ndarray, "S1"], by_count: bool, unweighted: bool, x: Shaped[ndarray, "N C"], i: int,
    mean: Float[ndarray, "R M C"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    y: Float[ndarray, "E R M C"], divisor: Float[ndarray, "E R M"], bias_scale: Float[ndarray, "E R M"],
) -> None:  # fmt: skip
    """What the centers of a window gather: their own features plus those of their points, over a divisor: one plus the
    sum or number of the weights.

    `bias_scale` is one plus the sum of the weights with which points entered, over the same divisor.
    """
    (heads, _, centers, channels), one = y.shape, y.dtype.type(1)
    row = np.empty(channels, y.dtype)
    for e in range(heads):
        for m in range(centers):
            bias_scale[e, i, m] = divisor[e, i, m] = one
            for k in range(channels):
                y[e, i, m, k] = mean[i, m, k]
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k] = widen(x[n, k])
        for e in range(heads):
            at, entry = center[n, e], one if unweighted else weight[n, e]
            bias_scale[e, i, at] += entry
            divisor[e, i, at] += one if by_count else entry
            for k in range(channels):
                y[e, i, at, k] += entry * row[k]
    for e in range(heads):
        for m in range(centers):
            scale = one / divisor[e, i, m]
            bias_scale[e, i, m] *= scale
            for k in range(channels):
                y[e, i, m, k] *= scale


@inlined_sums
def join_backward(
    s: int, ptr: Int[ndarray, "S1"], alpha: float, least: float, by_count: bool, unweighted: bool,
    x: Shaped[ndarray, "N C"], q: Shaped[ndarray, "P E D"], begin: int, c: Float[ndarray, "R M E D"],
    center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"], y: Float[ndarray, "E R M C"],
    divisor: Float[ndarray, "E R M"], i: int, dy: Float[ndarray, "E T M C"], dbias_scale: Float[ndarray, "E T M"],
    dweight: Float[ndarray, "O E"], dx: Shaped[ndarray, "N C"], dmean: Float[ndarray, "T M C"],
    dc: Float[ndarray, "T M E D"], dbq: Float[ndarray, "E D"], dscalars: Float[ndarray, "2"],
    dq: Shaped[ndarray, "P E D"],
) -> None:  # fmt: skip
    """Of window i of a tile. dx lacks what passes through queries and mean. `dbq` and `dscalars`, for alpha and beta,
    grow."""
    _, centers, heads, dim = c.shape
    channels, zero, one = x.shape[1], c.dtype.type(0), c.dtype.type(1)
    row, drow, query = np.empty(channels, c.dtype), np.empty(channels, c.dtype), np.empty(dim, c.dtype)
    unit, inverse = np.empty((heads, centers, dim), c.dtype), np.empty((heads, centers), c.dtype)
    dunit, dtotal = np.zeros((heads, centers, dim), c.dtype), np.zeros((heads, centers), c.dtype)
    dsum = np.empty((heads, centers, channels), c.dtype)  # of the sum of the features
    dalpha = dbeta = zero
    units(i, c, least, unit, inverse)
    origin = ptr[s - i]
    dmean[i, :, :] = 0
    for e in range(heads):
        for m in range(centers):
            scale, product = one / divisor[e, i, m], zero
            for k in range(channels):
                product += dy[e, i, m, k] * y[e, i, m, k]
            for k in range(channels):
                dsum[e, m, k] = dy[e, i, m, k] * scale
                dmean[i, m, k] += dsum[e, m, k]
            if not unweighted:
                dtotal[e, m] = (dbias_scale[e, i, m] if by_count else -product) * scale
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
            dz = (dweight[n - origin, e] + (zero if unweighted else da + dtotal[e, m])) * a * (one - a)
            length = max(np.sqrt(square), least)
            cosine, dnear = near / length, dz / length
            dalpha += dz * cosine
            dbeta += dz
            dnear *= alpha
            dself = -dnear * cosine / length if length > least else zero
            for d in range(dim):
                own = dnear * unit[e, m, d] + dself * query[d]
                dunit[e, m, d] += dnear * query[d]
                dbq[e, d] += own
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
                dc[i, m, e, d] = (dunit[e, m, d] - along * unit[e, m, d]) * inverse[e, m]
                dbq[e, d] += dc[i, m, e, d]
    dscalars[0] += dalpha
    dscalars[1] += dbeta


@inlined_sums
def dispatch(
    s: int, ptr: Int[ndarray, "S1"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    i: int, p: Float[ndarray, "E R M K"], bias: Float[ndarray, "K"], out: Shaped[ndarray, "N K"],
) -> None:  # fmt: skip
    """The weighted sum over the centers of each point of a window, plus the bias."""
    row = np.empty(len(bias), bias.dtype)
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(len(bias)):
            row[k] = bias[k]
        for e in range(len(p)):
            m, a = center[n, e], weight[n, e]
            for k in range(len(bias)):
                row[k] += a * p[e, i, m, k]
        for k in range(len(bias)):
            out[n, k] = narrow(row[k], out[n, k])


@inlined_sums
def dispatch_backward(
    s: int, ptr: Int[ndarray, "S1"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    p: Float[ndarray, "E R M K"], dout: Shaped[ndarray, "N K"], i: int, dweight: Float[ndarray, "O E"],
    dp: Float[ndarray, "E T M K"], dbias: Float[ndarray, "K"],
) -> None:  # fmt: skip
    """Of window i of a tile; `dbias` grows."""
    heads, _, centers, channels = p.shape
    row, origin = np.empty(channels, p.dtype), ptr[s - i]
    for e in range(heads):
        dp[e, i, :, :] = 0
    for n in range(ptr[s], ptr[s + 1]):
        for k in range(channels):
            row[k] = widen(dout[n, k])
            dbias[k] += row[k]
        for e in range(heads):
            m, a, da = center[n, e], weight[n, e], p.dtype.type(0)
            for k in range(channels):
                da += row[k] * p[e, i, m, k]
            for k in range(channels):
                dp[e, i, m, k] += a * row[k]
            dweight[n - origin, e] = da


@inlined_sums
def bias_backward(
    dg: Float[ndarray, "R D"], bias_scale: Float[ndarray, "R"], bias: Float[ndarray, "D"], by_count: bool,
    dbias: Float[ndarray, "D"], dbias_scale: Float[ndarray, "R"],
) -> None:  # fmt: skip
    """Of bias times bias_scale, which is one unless `by_count`; `dbias` grows."""
    for r in range(len(dg)):
        scale, total = bias_scale[r] if by_count else dg.dtype.type(1), dg.dtype.type(0)
        for d in range(len(bias)):
            dbias[d] += dg[r, d] * scale
        for d in range(len(bias)):
            total += dg[r, d] * bias[d]
        dbias_scale[r] = total
