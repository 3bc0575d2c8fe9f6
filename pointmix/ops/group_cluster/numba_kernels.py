"""Steps of `cluster_group` and its gradient that read all neighbors, one group after the other, compiled by numba."""

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
from pointmix.ops.kernels.jit import inlined_sums

# sums in any order, but one that is fixed, and NaN is kept: see `inlined_sums`
WEIGH, DISPATCH, GATHER, BACKWARD, ADD = range(5)
SIZES = 6  # phase, groups, neighbors, channels, channels of queries, counter of the groups taken


@inlined_sums
def length(x: Float[ndarray, "D"], least: float) -> float:
    square = least - least
    for d in range(len(x)):
        square += widen(x[d]) * widen(x[d])
    return max(math.sqrt(square), least)


@inlined_sums
def unit_center(q: Float[ndarray, "k D"], least: float, center: Float[ndarray, "D"]) -> float:
    """Write the mean query, scaled to length one, and return its length."""
    k, dim = q.shape
    center[:] = 0
    for n in range(k):
        for d in range(dim):
            center[d] += widen(q[n, d])
    for d in range(dim):
        center[d] *= center.dtype.type(1 / k)
    size = length(center, least)
    for d in range(dim):
        center[d] /= size
    return size


@inlined_sums
def weigh(
    x: Float[ndarray, "k C"], q: Float[ndarray, "k D"], alpha: float, beta: float, least: float, s: Float[ndarray, "k"],
    mean: Float[ndarray, "C"], center: Float[ndarray, "D"],
) -> None:  # fmt: skip
    """s_n of each neighbor, and sum_n w_n x_n."""
    (k, channels), one = x.shape, s.dtype.type(1)
    unit_center(q, least, center)
    total = one
    for n in range(k):
        cos = s.dtype.type(0)
        for d in range(len(center)):
            cos += widen(q[n, d]) * center[d]
        s[n] = one / (one + math.exp(-(alpha * (cos / length(q[n], least)) + beta)))
        total += s[n]
    mean[:] = 0
    for n in range(k):
        w = (s[n] + s.dtype.type(1 / k)) / total
        for c in range(channels):
            mean[c] += w * widen(x[n, c])


@inlined_sums
def dispatch(
    x: Float[ndarray, "k C"], s: Float[ndarray, "k"], p: Float[ndarray, "C"], bias: Float[ndarray, "C"],
    y: Float[ndarray, "k C"],
) -> None:  # fmt: skip
    """y_n = x_n + s_n p + bias."""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = narrow(widen(x[n, c]) + (s[n] * p[c] + bias[c]), y[n, c])


@inlined_sums
def gather(
    dy: Float[ndarray, "k C"], s: Float[ndarray, "k"], p: Float[ndarray, "C"], dp: Float[ndarray, "C"],
    db: Float[ndarray, "C"], ds: Float[ndarray, "k"],
) -> None:  # fmt: skip
    """Gradients of p, of the bias and of s, the last without the part that comes through w."""
    dp[:] = 0
    db[:] = 0
    for n in range(dy.shape[0]):
        dot = s.dtype.type(0)
        for c in range(dy.shape[1]):
            dot += widen(dy[n, c]) * p[c]
        for c in range(dy.shape[1]):  # a loop that sums must not write, see `inlined_sums`
            dp[c] += s[n] * widen(dy[n, c])
            db[c] += widen(dy[n, c])
        ds[n] = dot


@inlined_sums
def backward(
    x: Float[ndarray, "k C"], q: Float[ndarray, "k D"], alpha: float, least: float, s: Float[ndarray, "k"],
    dmean: Float[ndarray, "C"], ds: Float[ndarray, "k"], w: Float[ndarray, "k"], dq: Float[ndarray, "k D"],
    dscale: Float[ndarray, "2"], center: Float[ndarray, "D"], dcenter: Float[ndarray, "D"],
    along: Float[ndarray, "k 2"],
) -> None:  # fmt: skip
    """Gradients of the queries and of alpha and beta, and the weights w."""
    (k, channels), dim, zero, one = x.shape, len(center), s.dtype.type(0), s.dtype.type(1)
    size = unit_center(q, least, center)
    total, common = one, zero
    for n in range(k):
        total += s[n]
    for n in range(k):
        w[n] = (s[n] + s.dtype.type(1 / k)) / total
        dw = zero
        for c in range(channels):
            dw += widen(x[n, c]) * dmean[c]
        ds[n] += dw / total
        common += dw * w[n]
    dscale[:] = 0
    dcenter[:] = 0
    for n in range(k):
        near, here = zero, length(q[n], least)
        for d in range(dim):
            near += widen(q[n, d]) * center[d]
        cos = near / here
        dlogit = (ds[n] - common / total) * (s[n] * (one - s[n]))
        dscale[0] += dlogit * cos
        dscale[1] += dlogit
        dcos = alpha * dlogit / here
        radial = cos / here if here > least else zero  # shorter queries have no gradient of their length
        along[n, 0], along[n, 1] = dcos, -dcos * radial
        for d in range(dim):
            dcenter[d] += dcos * widen(q[n, d])
    radial = zero
    if size > least:
        for d in range(dim):
            radial += dcenter[d] * center[d]
    share = s.dtype.type(1 / k) / size
    for d in range(dim):
        dcenter[d] = (dcenter[d] - radial * center[d]) * share
    for n in range(k):
        for d in range(dim):
            dq[n, d] = narrow(along[n, 0] * center[d] + along[n, 1] * widen(q[n, d]) + dcenter[d], dq[n, d])


@inlined_sums
def add(
    dx: Float[ndarray, "k C"], dy: Float[ndarray, "k C"], w: Float[ndarray, "k"], dmean: Float[ndarray, "C"]
) -> None:
    """dx_n += dy_n + w_n dmean."""
    for n in range(dx.shape[0]):
        for c in range(dx.shape[1]):
            dx[n, c] = narrow(widen(dx[n, c]) + (widen(dy[n, c]) + w[n] * dmean[c]), dx[n, c])


def work_for(stored: type, dtype: type[np.floating], least: float) -> Callable:
    """A function for numba to compile, which each thread runs until all groups are done.

    It takes a pointer to the addresses of the sizes and of the `ARRAYS`.

    Args:
        stored: dtype of x, q, y and their gradients; uint16 for the bits of bfloat16.
        dtype: of all other arrays, and of what is computed.
        least: lengths of vectors are at least this.
    """
    least = dtype(least)

    def work(at) -> None:
        sizes = carray(at[0], (SIZES,), np.int64)
        phase, G, k, C, D, _ = sizes
        alpha, beta = carray(at[1], (1,), dtype), carray(at[2], (1,), dtype)
        bias, x = carray(at[3], (C,), dtype), carray(at[4], (G, k, C), stored)
        q, s, w = carray(at[5], (G, k, D), stored), carray(at[6], (G, k), dtype), carray(at[7], (G, k), dtype)
        mean, p, y = carray(at[8], (G, C), dtype), carray(at[9], (G, C), dtype), carray(at[10], (G, k, C), stored)
        dy, dp, db = carray(at[11], (G, k, C), stored), carray(at[12], (G, C), dtype), carray(at[13], (G, C), dtype)
        ds, dmean, dq = carray(at[14], (G, k), dtype), carray(at[15], (G, C), dtype), carray(at[16], (G, k, D), stored)
        dscale, dx = carray(at[17], (G, 2), dtype), carray(at[18], (G, k, C), stored)
        center, dcenter, along = np.empty(D, dtype), np.empty(D, dtype), np.empty((k, 2), dtype)
        while True:
            g = fetch_add(sizes[SIZES - 1 :])
            if g >= G:
                break
            if phase == WEIGH:
                weigh(x[g], q[g], alpha[0], beta[0], least, s[g], mean[g], center)
            elif phase == DISPATCH:
                dispatch(x[g], s[g], p[g], bias, y[g])
            elif phase == GATHER:
                gather(dy[g], s[g], p[g], dp[g], db[g], ds[g])
            elif phase == BACKWARD:
                at_center = ds[g], w[g], dq[g], dscale[g], center, dcenter, along
                backward(x[g], q[g], alpha[0], least, s[g], dmean[g], *at_center)
            else:
                add(dx[g], dy[g], w[g], dmean[g])

    return unwrap(work)


ARRAYS = "alpha beta bias x q s w mean p y dy dp db ds dmean dq dscale dx".split()  # after the sizes
