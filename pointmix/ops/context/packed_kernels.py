"""Context clustering of packed windows and its gradients, compiled by numba: each thread goes through some windows at a
time, whose centers stay in its cache from the means to the projection. Tensors are those of `packed_parts`.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from numba import carray

from pointmix.ops.context.packed_parts import (
    aligned,
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


class Sizes(ctypes.Structure):
    """The range of windows; numbers of points, windows, centers and heads; channels of heads, features and results;
    rules; address of sgemm, 0 to multiply without it; chunks of the windows; for how many windows at a time each chunk
    has room, 0 if tensors of centers hold all windows; a counter of the chunks taken."""

    _fields_ = [
        (name, ctypes.c_int64) for name in "first last N S M E D C K count unweighted gemm chunks room counter".split()
    ]


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
    least, fields = wide(least), len(Sizes._fields_)
    weigh = weigh64 if wide is np.float64 else weigh32

    def forward(at) -> None:
        """Of Sizes, ptr, members, exists, wqv, bqv, wp, bp, alpha, beta, x, q; to out, mean, c, y, divisor, bias_scale,
        weight, center, g, p."""
        sizes = carray(at[0], (fields,), np.int64)
        first, last, N, S, M, E, D, C, K, count, unweighted, gemm, chunks, room, _ = sizes
        rooms, held = (chunks, room) if room else (1, S)
        ptr = carray(at[1], (S + 1,), np.int64)
        members, exists = carray(at[2], (N, M), np.bool_), carray(at[3], (S, M), np.bool_)
        wqv, bqv = carray(at[4], (2, E * D, C), wide), carray(at[5], (2, E * D), wide)
        wp, bp = carray(at[6], (K, E * D), wide), carray(at[7], (K,), wide)
        alpha, beta = carray(at[8], (1,), wide), carray(at[9], (1,), wide)
        x, q, out = carray(at[10], (N, C), dtype), carray(at[11], (N, E, D), dtype), carray(at[12], (N, K), dtype)
        means, cs = carray(at[13], (rooms, held, M, C), wide), carray(at[14], (rooms, held, M, E, D), wide)
        ys, divisors = carray(at[15], (rooms, E, held, M, C), wide), carray(at[16], (rooms, E, held, M), wide)
        bias_scales = carray(at[17], (rooms, E, held, M), wide)
        weight, center = carray(at[18], (N, E), wide), carray(at[19], (N, E), np.int32)
        gs, ps = carray(at[20], (rooms, E, held * M, D), wide), carray(at[21], (rooms, E, held, M, K), wide)
        by_count, unweighted, wv, bv = count != 0, unweighted != 0, wqv[1].reshape(E, D, C), bqv[1].reshape(E, D)
        while True:
            chunk = fetch_add(sizes[fields - 1 :])
            if chunk >= chunks:
                break
            i = chunk if room else 0
            mean, c, y, divisor, bias_scale, g, p = means[i], cs[i], ys[i], divisors[i], bias_scales[i], gs[i], ps[i]
            every_mean, every_c = mean.reshape(held * M, C), c.reshape(held * M, E * D)
            every_y, every_p = y.reshape(E, held * M, C), p.reshape(E, held * M, K)
            every_scale = bias_scale.reshape(E, held * M)
            start = first_window(ptr, first, last, chunk, chunks)
            end = first_window(ptr, first, last, chunk + 1, chunks)
            while start < end:
                stop = end_of_tile(ptr, start, end, held)
                base = start if room else 0
                low, high = (start - base) * M, (stop - base) * M
                for s in range(start, stop):
                    pool(s, ptr, members, x, s - base, mean)
                for r in range(low, high):
                    every_c[r] = bqv[0]
                multiply(gemm, every_mean[low:high], wqv[0], False, True, True, every_c[low:high])
                origin, last_point = ptr[start], ptr[stop]
                square = np.empty((last_point - origin, E), wide)
                for s in range(start, stop):
                    nearest(s, ptr, exists, alpha[0], least, q, ptr[first], s - base, c, center, weight, square, origin)
                weigh(square.reshape(-1), least, beta[0], weight[origin:last_point].reshape(-1))
                for s in range(start, stop):
                    gather(s, ptr, by_count, unweighted, x, s - base, mean, center, weight, y, divisor, bias_scale)
                for e in range(E):
                    for r in range(low, high):
                        for d in range(D):
                            g[e, r, d] = bv[e, d] * (every_scale[e, r] if by_count else wide(1))
                    multiply(gemm, every_y[e, low:high], wv[e], False, True, True, g[e, low:high])
                    own = wp[:, e * D : (e + 1) * D]
                    multiply(gemm, g[e, low:high], own, False, True, False, every_p[e, low:high])
                for s in range(start, stop):
                    dispatch(s, ptr, center, weight, s - base, p, bp, out)
                start = stop

    def backward(at) -> None:
        """Of Sizes, ptr, members, wqv, bqv, wp, alpha, x, q, mean, c, y, divisor, bias_scale, weight, center, g, p,
        dout; to dq, dx and sums."""
        sizes = carray(at[0], (fields,), np.int64)
        first, last, N, S, M, E, D, C, K, count, unweighted, gemm, chunks, _, _ = sizes
        ptr, members = carray(at[1], (S + 1,), np.int64), carray(at[2], (N, M), np.bool_)
        wqv, bqv = carray(at[3], (2, E * D, C), wide), carray(at[4], (2, E * D), wide)
        wp, alpha = carray(at[5], (K, E * D), wide), carray(at[6], (1,), wide)
        x, q = carray(at[7], (N, C), dtype), carray(at[8], (N, E, D), dtype)
        mean, c = carray(at[9], (S * M, C), wide), carray(at[10], (S, M, E, D), wide)
        y, divisor = carray(at[11], (E, S, M, C), wide), carray(at[12], (E, S, M), wide)
        bias_scale = carray(at[13], (E, S * M), wide)
        weight, center = carray(at[14], (N, E), wide), carray(at[15], (N, E), np.int32)
        g, p = carray(at[16], (E, S * M, D), wide), carray(at[17], (E, S, M, K), wide)
        dout, dq = carray(at[18], (N, K), dtype), carray(at[19], (N, E, D), dtype)
        dx = carray(at[20], (N, C), dtype)
        by_count, unweighted, wv, bv = count != 0, unweighted != 0, wqv[1].reshape(E, D, C), bqv[1].reshape(E, D)
        every_y, maps = y.reshape(E, S * M, C), E * D * C
        sums = carray(at[21], (chunks, 2 * maps + K * E * D + 2 * E * D + K + 2), wide)
        while True:
            chunk = fetch_add(sizes[fields - 1 :])
            if chunk >= chunks:
                break
            dwq, dwv = sums[chunk, :maps].reshape(E * D, C), sums[chunk, maps : 2 * maps].reshape(E, D, C)
            rest = sums[chunk, 2 * maps :]
            dwp, rest = rest[: K * E * D].reshape(K, E * D), rest[K * E * D :]
            dbq, dbv = rest[: E * D].reshape(E, D), rest[E * D : 2 * E * D].reshape(E, D)
            dbias, dscalars = rest[2 * E * D : 2 * E * D + K], rest[2 * E * D + K :]
            start = first_window(ptr, first, last, chunk, chunks)
            end = first_window(ptr, first, last, chunk + 1, chunks)
            while start < end:
                stop = end_of_tile(ptr, start, end, S)
                low, high, windows = start * M, stop * M, stop - start
                dp = aligned(E * windows * M * K, p).reshape(E, windows, M, K)
                dy = aligned(E * windows * M * C, p).reshape(E, windows, M, C)
                dc = aligned(windows * M * E * D, p).reshape(windows, M, E, D)
                dmean = aligned(windows * M * C, p).reshape(windows, M, C)
                dg, dbias_scale = aligned(windows * M * D, p).reshape(windows * M, D), np.empty((E, windows, M), wide)
                dweight = np.empty((ptr[stop] - ptr[start], E), wide)
                for s in range(start, stop):
                    dispatch_backward(s, ptr, center, weight, p, dout, s - start, dweight, dp, dbias)
                for e in range(E):
                    own_dp, own = dp[e].reshape(high - low, K), slice(e * D, (e + 1) * D)
                    multiply(gemm, own_dp, g[e, low:high], True, False, True, dwp[:, own])
                    multiply(gemm, own_dp, wp[:, own], False, False, False, dg)
                    multiply(gemm, dg, every_y[e, low:high], True, False, True, dwv[e])
                    multiply(gemm, dg, wv[e], False, False, False, dy[e].reshape(high - low, C))
                    bias_backward(
                        dg, bias_scale[e, low:high], bv[e], by_count, dbv[e], dbias_scale[e].reshape(high - low)
                    )
                for s in range(start, stop):
                    join_backward(
                        s, ptr, alpha[0], least, by_count, unweighted, x, q, ptr[first], c, center, weight, y, divisor,
                        s - start, dy, dbias_scale, dweight, dx, dmean, dc, dbq, dscalars, dq,
                    )  # fmt: skip
                every_dc, every_dmean = dc.reshape(high - low, E * D), dmean.reshape(high - low, C)
                multiply(gemm, every_dc, wqv[0], False, False, True, every_dmean)
                multiply(gemm, every_dc, mean[low:high], True, False, True, dwq)
                for s in range(start, stop):
                    pool_backward(s, ptr, members, dmean[s - start], dx)
                start = stop

    return unwrap(forward), unwrap(backward)
