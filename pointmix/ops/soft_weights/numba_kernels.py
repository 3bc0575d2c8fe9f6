"""Weights of soft clustering and their gradients, compiled by numba to vector instructions over the points.

A thread takes one head of one row of the bias, and all rows of points that it repeats for, so that the gradient of
the bias is summed in one order.
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
WIDTH = 256  # points at a time


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
def mean_gradient(a: Float[ndarray, "L"], da: Float[ndarray, "L"], plus: float, mean: Float[ndarray, "W"]) -> None:
    """mean += a (da + plus)"""
    for n in range(a.shape[0]):
        mean[n] += widen(a[n]) * (widen(da[n]) + plus)


@inlined
def gradients(
    near: Float[ndarray, "L"], scale: Float[ndarray, "W"], bound: float, a: Float[ndarray, "L"],
    da: Float[ndarray, "L"], plus: float, mean: Float[ndarray, "W"], dnear: Float[ndarray, "L"],
    dscale: Float[ndarray, "W"], dbound: Float[ndarray, "W"], dbias: Float[ndarray, "L"],
) -> None:  # fmt: skip
    """Of one center: dnear is written; gradients of scale, bound and bias are added."""
    for n in range(near.shape[0]):
        here = widen(near[n])
        cosine, dlogit = here * scale[n], widen(a[n]) * (widen(da[n]) + plus - mean[n])
        inside = (cosine <= bound) & (cosine >= -bound)
        dcosine = dlogit if inside else ZERO
        dbound[n] += ZERO if inside else (dlogit if cosine > bound else -dlogit)
        dnear[n] = narrow(dcosine * scale[n], dnear[n])
        dscale[n] += dcosine * here
        dbias[n] += dlogit


def forward_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all heads of rows of the bias are done.

    It takes a pointer to the addresses of the sizes (R, M, E, L, rows of the bias, whether bias, valid and exists are
    given, threads, counter), near, size, bound, bias, valid, exists, the weights and their sums.

    Args:
        dtype: of near and the weights: float32, or uint16 for the bits of bfloat16. All others are float32 and bool.
    """

    def forward(at) -> None:
        sizes = carray(at[0], (10,), np.int64)
        R, M, E, L, P, has_bias, has_valid, has_exists, _, _ = sizes
        near, size = carray(at[1], (R, M, E, L), dtype), carray(at[2], (R, E, L), F32)
        bound, bias = carray(at[3], (1,), F32)[0], carray(at[4], (P, M, E, L), F32)
        valid, exists = carray(at[5], (R, L), np.bool_), carray(at[6], (R, M), np.bool_)
        a, total = carray(at[7], (R, M, E, L), dtype), carray(at[8], (R, M, E), F32)
        x, none = np.empty((M, WIDTH), F32), np.zeros(WIDTH, F32)
        scale, top, sums = np.empty(WIDTH, F32), np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        while True:
            unit = fetch_add(sizes[9:])
            if unit >= P * E:
                break
            p, e = unit // E, unit % E
            for r in range(p, R, P):
                for m in range(M):
                    total[r, m, e] = ZERO
                for first in range(0, L, WIDTH):
                    last = min(first + WIDTH, L)
                    W = last - first
                    top[:], sums[:] = -np.inf, ZERO
                    for n in range(W):
                        scale[n] = ONE / size[r, e, first + n]
                    for m in range(M):
                        if not has_exists or exists[r, m]:
                            add = bias[p, m, e, first:last] if has_bias else none[:W]
                            logits(near[r, m, e, first:last], scale, bound, add, x[m], top)
                    for m in range(M):
                        if not has_exists or exists[r, m]:
                            powers(x[m], top, sums, W)
                    for n in range(W):
                        sums[n] = ONE / sums[n]
                    if has_valid:
                        for n in range(W):
                            sums[n] = sums[n] if valid[r, first + n] else ZERO
                    for m in range(M):
                        if has_exists and not exists[r, m]:
                            x[m, :W] = ZERO
                        out = a[r, m, e, first:last]
                        scaled(x[m], sums, out)
                        total[r, m, e] += sum_of(out)

    return unwrap(forward)


def backward_for(dtype: type) -> Callable:
    """As `forward_for`, with the addresses of the sizes, near, size, bound, the weights, their gradient, that of their
    sums, and of the gradients of near, size, bias (zeros) and bound (zeros for each row of the bias and head).
    """

    def backward(at) -> None:
        sizes = carray(at[0], (10,), np.int64)
        R, M, E, L, P, has_bias, has_valid, has_exists, _, _ = sizes
        near, size = carray(at[1], (R, M, E, L), dtype), carray(at[2], (R, E, L), F32)
        bound, a = carray(at[3], (1,), F32)[0], carray(at[4], (R, M, E, L), dtype)
        da, dtotal = carray(at[5], (R, M, E, L), dtype), carray(at[6], (R, M, E), F32)
        dnear, dsize = carray(at[7], (R, M, E, L), dtype), carray(at[8], (R, E, L), F32)
        dbias, dbound = carray(at[9], (P, M, E, L), F32), carray(at[10], (P, E), F32)
        none = np.zeros(WIDTH, F32)
        scale, mean = np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        dscale, clamped = np.empty(WIDTH, F32), np.empty(WIDTH, F32)
        while True:
            unit = fetch_add(sizes[9:])
            if unit >= P * E:
                break
            p, e = unit // E, unit % E
            for r in range(p, R, P):
                for first in range(0, L, WIDTH):
                    last = min(first + WIDTH, L)
                    W = last - first
                    mean[:], dscale[:], clamped[:] = ZERO, ZERO, ZERO
                    for n in range(W):
                        scale[n] = ONE / size[r, e, first + n]
                    for m in range(M):
                        mean_gradient(a[r, m, e, first:last], da[r, m, e, first:last], dtotal[r, m, e], mean)
                    for m in range(M):
                        gradients(
                            near[r, m, e, first:last], scale, bound, a[r, m, e, first:last],
                            da[r, m, e, first:last], dtotal[r, m, e], mean, dnear[r, m, e, first:last],
                            dscale, clamped, dbias[p, m, e, first:last] if has_bias else none[:W],
                        )  # fmt: skip
                    dsize[r, e, first:last] = -dscale[:W] * scale[:W] * scale[:W]
                    dbound[p, e] += sum_of(clamped[:W])

    return unwrap(backward)
