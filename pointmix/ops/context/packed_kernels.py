"""Context clustering of packed windows and its gradients, compiled by numba: each thread goes through some windows at a
time, whose centers stay in its cache from the means to the projection. Tensors are those of `packed_parts`.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numba import carray
from numpy import ndarray

from pointmix.ops.context.packed_parts import (
    bias_backward,
    dispatch,
    dispatch_backward,
    end_of_tile,
    first_window,
    gather,
    join_backward,
    multiply,
    nearest,
    pool,
    pool_backward,
    weigh32,
    weigh64,
)
from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined


class Sizes(ctypes.Structure):
    """The range of windows; numbers of points, windows, centers and heads; channels of heads, features and results;
    rules; address of sgemm, 0 to multiply without it; chunks of the windows; how many windows a thread takes at a
    time at most, and the numbers that it needs room for then; a counter of the chunks taken."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in "first last N S M E D C K count unweighted gemm chunks room numbers counter".split()
    ]


@inlined
def room_for(
    space: Float[ndarray, "_"], windows: int, heads: int, centers: int, dim: int, channels: int, out_channels: int
) -> tuple[ndarray, ...]:
    """Room for what the centers of some windows hold: mean, c, y, divisor, bias_scale, g, p. Each starts at a multiple
    of 64 bytes: how sgemm adds up may depend on where its matrices lie in a line of the cache."""
    rows = windows * centers
    padded = (rows + 15) // 16 * 16
    mean, space = space[: rows * channels], space[padded * channels :]
    c, space = space[: rows * heads * dim], space[padded * heads * dim :]
    y, space = space[: rows * heads * channels], space[padded * heads * channels :]
    divisor, space = space[: rows * heads], space[padded * heads :]
    bias_scale, space = space[: rows * heads], space[padded * heads :]
    g, space = space[: rows * heads * dim], space[padded * heads * dim :]
    return (
        mean.reshape(windows, centers, channels),
        c.reshape(windows, centers, heads, dim),
        y.reshape(heads, windows, centers, channels),
        divisor.reshape(heads, windows, centers),
        bias_scale.reshape(heads, windows, centers),
        g.reshape(heads, rows, dim),
        space[: rows * heads * out_channels].reshape(heads, windows, centers, out_channels),
    )


@inlined
def find_centers(
    start: int, stop: int, ptr: Int[ndarray, "S1"], members: Bool[ndarray, "N M"], gemm: int,
    wq: Float[ndarray, "ED C"], bq: Float[ndarray, "ED"], x: Shaped[ndarray, "N C"], mean: Float[ndarray, "R M C"],
    c: Float[ndarray, "R M E D"],
) -> None:  # fmt: skip
    """Mean features of the centers of the windows of a tile, and their queries."""
    windows, centers, channels = mean.shape
    rows = (stop - start) * centers
    every_mean, every_c = mean.reshape(windows * centers, channels), c.reshape(windows * centers, len(bq))
    for s in range(start, stop):
        pool(s, ptr, members, x, s - start, mean)
    for r in range(rows):
        for k in range(len(bq)):
            every_c[r, k] = bq[k]
    multiply(gemm, every_mean[:rows], wq, False, True, True, every_c[:rows])


@inlined
def project(
    start: int, stop: int, ptr: Int[ndarray, "S1"], by_count: bool, unweighted: bool, gemm: int,
    wv: Float[ndarray, "E D C"], bv: Float[ndarray, "E D"], wp: Float[ndarray, "K ED"], x: Shaped[ndarray, "N C"],
    mean: Float[ndarray, "R M C"], center: Int[ndarray, "N E"], weight: Float[ndarray, "N E"],
    y: Float[ndarray, "E R M C"], divisor: Float[ndarray, "E R M"], bias_scale: Float[ndarray, "E R M"],
    g: Float[ndarray, "E RM D"], p: Float[ndarray, "E R M K"],
) -> None:  # fmt: skip
    """What the centers of the windows of a tile gather, y; its values, g; and their projections, p."""
    (heads, _, centers, channels), (_, total, dim) = y.shape, g.shape
    rows, one = (stop - start) * centers, y.dtype.type(1)
    every_y, every_p = y.reshape(heads, total, channels), p.reshape(heads, total, len(wp))
    every_scale = bias_scale.reshape(heads, total)
    for s in range(start, stop):
        gather(s, ptr, by_count, unweighted, x, s - start, mean, center, weight, y, divisor, bias_scale)
    for e in range(heads):
        for r in range(rows):
            for d in range(dim):
                g[e, r, d] = bv[e, d] * (every_scale[e, r] if by_count else one)
        multiply(gemm, every_y[e, :rows], wv[e], False, True, True, g[e, :rows])
        multiply(gemm, g[e, :rows], wp[:, e * dim : (e + 1) * dim], False, True, False, every_p[e, :rows])


def kernels_for(dtype: type, wide: type, least: float) -> tuple[Callable, Callable]:
    """Functions for numba to compile, which each thread runs until all windows are done: the forward pass, and the
    backward pass apart from the products of the points' queries.

    They take a pointer to addresses: of `Sizes` and of contiguous arrays, ptr int64, center int32, members and exists
    bool, x, q, out and their gradients with the dtype of the points. q holds the queries from the first point of the
    range on, as does dq, which may be q. Each chunk has sums of its own, for wqv, wp, bqv, bp, alpha and beta.

    Args:
        dtype: of the points: float32, float64, or uint16 for the bits of bfloat16.
        wide: of all others, float32 or float64.
        least: lengths of vectors are at least this.
    """
    least, fields, double = wide(least), len(Sizes._fields_), wide is np.float64

    def forward(at) -> None:
        """Of Sizes, ptr, members, exists, wqv, bqv, wp, bp, alpha, beta, x, q; to out, weight, center, and room."""
        sizes = carray(at[0], (fields,), np.int64)
        first, last, N, S, M, E, D, C, K, count, unweighted, gemm, chunks, room, numbers, _ = sizes
        ptr = carray(at[1], (S + 1,), np.int64)
        members, exists = carray(at[2], (N, M), np.bool_), carray(at[3], (S, M), np.bool_)
        wqv, bqv = carray(at[4], (2, E * D, C), wide), carray(at[5], (2, E * D), wide)
        wp, bp = carray(at[6], (K, E * D), wide), carray(at[7], (K,), wide)
        alpha, beta = carray(at[8], (1,), wide), carray(at[9], (1,), wide)
        x, q, out = carray(at[10], (N, C), dtype), carray(at[11], (N, E, D), dtype), carray(at[12], (N, K), dtype)
        weight, center = carray(at[13], (N, E), wide), carray(at[14], (N, E), np.int32)
        spaces = carray(at[15], (chunks, numbers), wide)
        by_count, unweighted, wv, bv = count != 0, unweighted != 0, wqv[1].reshape(E, D, C), bqv[1].reshape(E, D)
        while True:
            chunk = fetch_add(sizes[fields - 1 :])
            if chunk >= chunks:
                break
            mean, c, y, divisor, bias_scale, g, p = room_for(spaces[chunk], room, E, M, D, C, K)
            start = first_window(ptr, first, last, chunk, chunks)
            end = first_window(ptr, first, last, chunk + 1, chunks)
            while start < end:
                stop = end_of_tile(ptr, start, end, room)
                low, high = ptr[start], ptr[stop]
                square = np.empty((high - low, E), wide)
                find_centers(start, stop, ptr, members, gemm, wqv[0], bqv[0], x, mean, c)
                for s in range(start, stop):
                    nearest(
                        s, ptr, exists, alpha[0], least, q, ptr[first], s - start, c, center, weight, square, low,
                    )  # fmt: skip
                if double:  # a constant: numba compiles one of the two
                    weigh64(square.reshape(-1), least, beta[0], weight[low:high].reshape(-1))
                else:
                    weigh32(square.reshape(-1), least, beta[0], weight[low:high].reshape(-1))
                project(
                    start, stop, ptr, by_count, unweighted, gemm, wv, bv, wp, x, mean, center, weight, y, divisor,
                    bias_scale, g, p,
                )  # fmt: skip
                for s in range(start, stop):
                    dispatch(s, ptr, center, weight, s - start, p, bp, out)
                start = stop

    def backward(at) -> None:
        """Of Sizes, ptr, members, wqv, bqv, wp, alpha, x, q, weight, center, dout; to dq, dx and sums, and room. What
        the centers hold is computed again: reading it back takes as long."""
        sizes = carray(at[0], (fields,), np.int64)
        first, last, N, S, M, E, D, C, K, count, unweighted, gemm, chunks, room, numbers, _ = sizes
        ptr, members = carray(at[1], (S + 1,), np.int64), carray(at[2], (N, M), np.bool_)
        wqv, bqv = carray(at[3], (2, E * D, C), wide), carray(at[4], (2, E * D), wide)
        wp, alpha = carray(at[5], (K, E * D), wide), carray(at[6], (1,), wide)
        x, q = carray(at[7], (N, C), dtype), carray(at[8], (N, E, D), dtype)
        weight, center = carray(at[9], (N, E), wide), carray(at[10], (N, E), np.int32)
        dout, dq = carray(at[11], (N, K), dtype), carray(at[12], (N, E, D), dtype)
        dx = carray(at[13], (N, C), dtype)
        by_count, unweighted, wv, bv = count != 0, unweighted != 0, wqv[1].reshape(E, D, C), bqv[1].reshape(E, D)
        maps, spaces = E * D * C, carray(at[15], (chunks, 2, numbers), wide)
        sums = carray(at[14], (chunks, 2 * maps + K * E * D + 2 * E * D + K + 2), wide)
        while True:
            chunk = fetch_add(sizes[fields - 1 :])
            if chunk >= chunks:
                break
            dwq, dwv = sums[chunk, :maps].reshape(E * D, C), sums[chunk, maps : 2 * maps].reshape(E, D, C)
            rest = sums[chunk, 2 * maps :]
            dwp, rest = rest[: K * E * D].reshape(K, E * D), rest[K * E * D :]
            dbq, dbv = rest[: E * D].reshape(E, D), rest[E * D : 2 * E * D].reshape(E, D)
            dbias, dscalars = rest[2 * E * D : 2 * E * D + K], rest[2 * E * D + K :]
            mean, c, y, divisor, bias_scale, g, p = room_for(spaces[chunk, 0], room, E, M, D, C, K)
            dmean, dc, dy, dbias_scale, _, dg, dp = room_for(spaces[chunk, 1], room, E, M, D, C, K)
            every_mean, every_y = mean.reshape(room * M, C), y.reshape(E, room * M, C)
            every_dmean, every_dc = dmean.reshape(room * M, C), dc.reshape(room * M, E * D)
            every_dy, every_dp = dy.reshape(E, room * M, C), dp.reshape(E, room * M, K)
            scale, dscale = bias_scale.reshape(E, room * M), dbias_scale.reshape(E, room * M)
            start = first_window(ptr, first, last, chunk, chunks)
            end = first_window(ptr, first, last, chunk + 1, chunks)
            while start < end:
                stop = end_of_tile(ptr, start, end, room)
                rows = (stop - start) * M
                dweight = np.empty((ptr[stop] - ptr[start], E), wide)
                find_centers(start, stop, ptr, members, gemm, wqv[0], bqv[0], x, mean, c)
                project(
                    start, stop, ptr, by_count, unweighted, gemm, wv, bv, wp, x, mean, center, weight, y, divisor,
                    bias_scale, g, p,
                )  # fmt: skip
                for s in range(start, stop):
                    dispatch_backward(s, ptr, center, weight, p, dout, s - start, dweight, dp, dbias)
                for e in range(E):
                    own, own_dg, own_dp = slice(e * D, (e + 1) * D), dg[e, :rows], every_dp[e, :rows]
                    multiply(gemm, own_dp, g[e, :rows], True, False, True, dwp[:, own])
                    multiply(gemm, own_dp, wp[:, own], False, False, False, own_dg)
                    multiply(gemm, own_dg, every_y[e, :rows], True, False, True, dwv[e])
                    multiply(gemm, own_dg, wv[e], False, False, False, every_dy[e, :rows])
                    bias_backward(own_dg, scale[e, :rows], bv[e], by_count, dbv[e], dscale[e, :rows])
                for s in range(start, stop):
                    join_backward(
                        s, ptr, alpha[0], least, by_count, unweighted, x, q, ptr[first], c, center, weight, y, divisor,
                        s - start, dy, dbias_scale, dweight, dx, dmean, dc, dbq, dscalars, dq,
                    )  # fmt: skip
                multiply(gemm, every_dc[:rows], wqv[0], False, False, True, every_dmean[:rows])
                multiply(gemm, every_dc[:rows], every_mean[:rows], True, False, True, dwq)
                for s in range(start, stop):
                    pool_backward(s, ptr, members, dmean[s - start], dx)
                start = stop

    return unwrap(forward), unwrap(backward)
