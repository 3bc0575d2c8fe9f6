"""Weights of soft clustering and their gradients, compiled by numba to vector instructions over the points.

A thread takes some heads of one row of the bias, and all rows of points that it repeats for, so that the gradient of
the bias is summed in one order. The points of several heads lie one after the other, and short loops cost more than
what they compute, so a loop runs over as many heads as fit WIDTH.
"""

# mypy: ignore-errors
from __future__ import annotations

import math
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen
from pointmix.ops.kernels.jit import inlined, inlined_sums
from pointmix.ops.kernels.vector_math import SMALLEST, exp2

F32 = np.float32
LOG2_OF_E, ZERO, ONE = F32(1 / math.log(2)), F32(0), F32(1)
WIDTH = 256  # points of one or several heads at a time


@inlined
def exp(x: float) -> float:
    """exp(x) for x <= 0."""
    y = LOG2_OF_E * x
    e = exp2(max(y, SMALLEST))
    e = ZERO if y < SMALLEST else e
    return e if x == x else x


@inlined
def logits(
    near: Float[ndarray, "L"], scale: Float[ndarray, "W"], bound: float, bias: Float[ndarray, "L"],
    out: Float[ndarray, "W"], top: Float[ndarray, "W"],
) -> None:  # fmt: skip
    """out = clamp(near scale) + bias of one center, and the largest so far."""
    for n in range(near.shape[0]):
        cosine = widen(near[n]) * scale[n]
        cosine = bound if cosine > bound else (-bound if cosine < -bound else cosine)
        out[n] = cosine + bias[n]
        top[n] = out[n] if out[n] > top[n] else top[n]


@inlined
def powers(x: Float[ndarray, "W"], top: Float[ndarray, "W"], total: Float[ndarray, "W"], count: int) -> None:
    """x = exp(x - top), added to the total."""
    for n in range(count):
        x[n] = exp(x[n] - top[n])
        total[n] += x[n]


@inlined
def scaled(x: Float[ndarray, "W"], scale: Float[ndarray, "W"], out: Float[ndarray, "L"]) -> None:
    for n in range(out.shape[0]):
        out[n] = narrow(x[n] * scale[n], out[n])


@inlined_sums
def sum_of(x: Float[ndarray, "L"]) -> float:
    total = ZERO
    for n in range(x.shape[0]):
        total += widen(x[n])
    return total


@inlined
def mean_gradient(
    a: Float[ndarray, "L"], da: Float[ndarray, "L"], plus: Float[ndarray, "W"], mean: Float[ndarray, "W"]
) -> None:
    """mean += a (da + plus)"""
    for n in range(a.shape[0]):
        mean[n] += widen(a[n]) * (widen(da[n]) + plus[n])


@inlined
def gradients(
    near: Float[ndarray, "L"], scale: Float[ndarray, "W"], bound: float, a: Float[ndarray, "L"],
    da: Float[ndarray, "L"], plus: Float[ndarray, "W"], mean: Float[ndarray, "W"], dnear: Float[ndarray, "L"],
    dscale: Float[ndarray, "W"], dbound: Float[ndarray, "W"], dbias: Float[ndarray, "L"],
) -> None:  # fmt: skip
    """Of one center: dnear is written; gradients of scale, bound and bias are added."""
    for n in range(near.shape[0]):
        here = widen(near[n])
        cosine, dlogit = here * scale[n], widen(a[n]) * (widen(da[n]) + plus[n] - mean[n])
        inside = (cosine <= bound) & (cosine >= -bound)
        dcosine = dlogit if inside else ZERO
        dbound[n] += ZERO if inside else (dlogit if cosine > bound else -dlogit)
        dnear[n] = narrow(dcosine * scale[n], dnear[n])
        dscale[n] += dcosine * here
        dbias[n] += dlogit


@inlined
def part_of_head(head: int, points: int, first: int, last: int) -> tuple[int, int]:
    """Where the points of a head begin and end among those from first to last."""
    return max(head * points - first, 0), min((head + 1) * points, last) - first


def forward_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all heads of rows of the bias are done.

    It takes a pointer to the addresses of the sizes (R, M, E, L, rows of the bias, heads at a time, whether bias, valid
    and exists are given, counter), near, size, bound, bias, valid, exists, the weights and their sums.

    Args:
        dtype: of near and the weights: float32, or uint16 for the bits of bfloat16. All others are float32 and bool.
    """

    def forward(at) -> None:
        sizes = carray(at[0], (10,), np.int64)
        R, M, E, L, P, heads, has_bias, has_valid, has_exists, _ = sizes
        near, size = carray(at[1], (R, M, E * L), dtype), carray(at[2], (R, E * L), F32)
        bound, bias = carray(at[3], (1,), F32)[0], carray(at[4], (P, M, E * L), F32)
        valid, exists = carray(at[5], (R, L), np.bool_), carray(at[6], (R, M), np.bool_)
        a, total = carray(at[7], (R, M, E * L), dtype), carray(at[8], (R, M, E), F32)
        x, none = np.empty((M, WIDTH), F32), np.zeros(WIDTH, F32)
        scale, top, sums = np.empty(WIDTH, F32), np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        groups = -(-E // heads)
        while True:
            unit = fetch_add(sizes[9:])
            if unit >= P * groups:
                break
            p, low = unit // groups, unit % groups * heads
            high = min(low + heads, E)
            for r in range(p, R, P):
                total[r, :, low:high] = ZERO
                for first in range(low * L, high * L, WIDTH):
                    last = min(first + WIDTH, high * L)
                    W = last - first
                    top[:], sums[:] = -np.inf, ZERO
                    for n in range(W):
                        scale[n] = ONE / size[r, first + n]
                    for m in range(M):
                        if not has_exists or exists[r, m]:
                            add = bias[p, m, first:last] if has_bias else none[:W]
                            logits(near[r, m, first:last], scale, bound, add, x[m], top)
                    for m in range(M):
                        if not has_exists or exists[r, m]:
                            powers(x[m], top, sums, W)
                    for n in range(W):
                        sums[n] = ONE / sums[n]
                    if has_valid:
                        for n in range(W):
                            sums[n] = sums[n] if valid[r, (first + n) % L] else ZERO
                    for m in range(M):
                        if has_exists and not exists[r, m]:
                            x[m, :W] = ZERO
                        out = a[r, m, first:last]
                        scaled(x[m], sums, out)
                        for e in range(low, high):
                            begin, end = part_of_head(e, L, first, last)
                            total[r, m, e] += sum_of(out[begin:end])

    return unwrap(forward)


def backward_for(dtype: type) -> Callable:
    """As `forward_for`, with the addresses of the sizes, near, size, bound, the weights, their gradient, that of their
    sums, and of the gradients of near, size, bias (zeros) and bound (zeros for each row of the bias and head).
    """

    def backward(at) -> None:
        sizes = carray(at[0], (10,), np.int64)
        R, M, E, L, P, heads, has_bias, has_valid, has_exists, _ = sizes
        near, size = carray(at[1], (R, M, E * L), dtype), carray(at[2], (R, E * L), F32)
        bound, a = carray(at[3], (1,), F32)[0], carray(at[4], (R, M, E * L), dtype)
        da, dtotal = carray(at[5], (R, M, E * L), dtype), carray(at[6], (R, M, E), F32)
        dnear, dsize = carray(at[7], (R, M, E * L), dtype), carray(at[8], (R, E * L), F32)
        dbias, dbound = carray(at[9], (P, M, E * L), F32), carray(at[10], (P, E), F32)
        none, plus = np.zeros(WIDTH, F32), np.empty((M, WIDTH), F32)
        scale, mean = np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        dscale, clamped = np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        groups = -(-E // heads)
        while True:
            unit = fetch_add(sizes[9:])
            if unit >= P * groups:
                break
            p, low = unit // groups, unit % groups * heads
            high = min(low + heads, E)
            for r in range(p, R, P):
                for first in range(low * L, high * L, WIDTH):
                    last = min(first + WIDTH, high * L)
                    W = last - first
                    mean[:], dscale[:], clamped[:] = ZERO, ZERO, ZERO
                    for n in range(W):
                        scale[n] = ONE / size[r, first + n]
                    for m in range(M):
                        for e in range(low, high):
                            begin, end = part_of_head(e, L, first, last)
                            plus[m, begin:end] = dtotal[r, m, e]
                        mean_gradient(a[r, m, first:last], da[r, m, first:last], plus[m], mean)
                    for m in range(M):
                        gradients(
                            near[r, m, first:last], scale, bound, a[r, m, first:last], da[r, m, first:last], plus[m],
                            mean, dnear[r, m, first:last], dscale, clamped,
                            dbias[p, m, first:last] if has_bias else none[:W],
                        )  # fmt: skip
                    for i in range(W):
                        dsize[r, first + i] = -dscale[i] * scale[i] * scale[i]
                    dbound[p, low] += sum_of(clamped[:W])

    return unwrap(backward)
