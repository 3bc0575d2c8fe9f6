"""Cross-entropy of lifted logits and its gradient, point by point, compiled by numba."""

# mypy: ignore-errors
from __future__ import annotations

import math
from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray, njit
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined, inlined_sums
from pointmix.ops.kernels.vector_math import SMALLEST, exp2

F32 = np.float32
LOG2_OF_E, ZERO, LOWEST = F32(1 / math.log(2)), F32(0), F32(np.finfo(np.float32).min)


@inlined
def add_scaled(out: Float[ndarray, "K"], x: Float[ndarray, "K"], scale: float) -> None:
    """out += scale x"""
    for k in range(out.shape[0]):
        out[k] += scale * x[k]


@inlined
def exponentials(z: Float[ndarray, "K"], most: float, out: Float[ndarray, "K"]) -> None:
    """out = exp(z - most)"""
    for k in range(z.shape[0]):
        out[k] = exp2(max(LOG2_OF_E * (z[k] - most), SMALLEST))


@inlined_sums
def total(x: Float[ndarray, "K"]) -> float:
    s = ZERO
    for k in range(x.shape[0]):
        s += x[k]
    return s


def _largest(x: Float[ndarray, "K"]) -> float:
    best = LOWEST
    for k in range(x.shape[0]):
        best = x[k] if x[k] > best else best
    return best


largest = njit(unwrap(_largest), error_model="numpy", fastmath={"nnan", "nsz"}, forceinline=True)  # in vectors


def loss_and_gradient(at) -> None:
    """For each chunk of the points the sum of their losses and its gradient. Each thread runs this until all are done.

    Takes a pointer to the addresses of `Sizes`, feat, index, weight, labels, weights of classes, losses (chunks), and
    gradients (chunks, Q, K), which are 0. Each set has as many chunks.
    """
    sizes = carray(at[0], (8,), np.int64)
    S, Q, N, J, K, ignore, chunks, _ = sizes
    every_feat, every_label = carray(at[1], (S, Q, K), F32), carray(at[4], (S, N), np.int64)
    index, weight, classes = carray(at[2], (N, J), np.int64), carray(at[3], (N, J), F32), carray(at[5], (K,), F32)
    loss, gradient = carray(at[6], (chunks,), np.float64), carray(at[7], (chunks, Q, K), F32)
    z, e = np.empty(K, F32), np.empty(K, F32)
    while True:
        chunk = fetch_add(sizes[7:])
        if chunk >= chunks:
            break
        parts = chunks // S
        feat, labels, part, sum_of_losses = every_feat[chunk // parts], every_label[chunk // parts], chunk % parts, 0.0
        for n in range(N * part // parts, N * (part + 1) // parts):
            label = labels[n]
            if label == ignore:
                continue
            z[:] = ZERO
            for j in range(J):
                add_scaled(z, feat[index[n, j]], weight[n, j])
            most = largest(z)
            exponentials(z, most, e)
            s, scale = total(e), classes[label]
            nothing = ZERO * total(z)  # NaN if a logit is not finite
            sum_of_losses += scale * (most + math.log(s) - z[label] + nothing)
            for j in range(J):
                row, share = gradient[chunk, index[n, j]], scale * weight[n, j]
                add_scaled(row, e, share / s + nothing)
                row[label] -= share
        loss[chunk] = sum_of_losses


loss_and_gradient = unwrap(loss_and_gradient)
