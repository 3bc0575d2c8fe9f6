"""Gradients of a scaled residual and of the normalization after it, compiled by numba: each thread goes through some
sets, whose second pass finds most of a set in the cache.

With h = x + gamma * branch, z = (h - mean) * rstd and y = weight * z + bias, and means over a set's n numbers:

    dx = dh + rstd * (weight * dy - mean(weight * dy) - z * mean(weight * dy * z)),  dbranch = gamma * dx
"""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float, Shaped
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, narrow, widen
from pointmix.ops.kernels.jit import inlined

F32 = np.float32

# Short loops: LLVM compiles them to vector instructions only if few arrays may overlap.


@inlined
def normalize(
    x: Float[ndarray, "C"], branch: Shaped[ndarray, "C"], gamma: Float[ndarray, "C"], mean: float, rstd: float,
    z: Float[ndarray, "C"],
) -> None:  # fmt: skip
    for k in range(z.shape[0]):
        z[k] = (x[k] + gamma[k] * widen(branch[k]) - mean) * rstd


@inlined
def add_output(
    dy: Float[ndarray, "C"], z: Float[ndarray, "C"], dbias: Float[ndarray, "C"], dweight: Float[ndarray, "C"]
) -> None:
    for k in range(z.shape[0]):
        dbias[k] += dy[k]
        dweight[k] += dy[k] * z[k]


@inlined
def of_input(
    dh: Float[ndarray, "C"], dy: Float[ndarray, "C"], weight: Float[ndarray, "C"], z: Float[ndarray, "C"],
    rstd: float, along_one: float, along_z: float, dx: Float[ndarray, "C"],
) -> None:  # fmt: skip
    for k in range(dx.shape[0]):
        dx[k] = dh[k] + rstd * (weight[k] * dy[k] - along_one - z[k] * along_z)


@inlined
def of_branch(
    dx: Float[ndarray, "C"], branch: Shaped[ndarray, "C"], gamma: Float[ndarray, "C"],
    dbranch: Shaped[ndarray, "C"], dgamma: Float[ndarray, "C"],
) -> None:  # fmt: skip
    for k in range(dx.shape[0]):
        dgamma[k] += dx[k] * widen(branch[k])
        dbranch[k] = narrow(gamma[k] * dx[k], dbranch[k])


def backward_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all chunks are done.

    It takes a pointer to the addresses of `Sizes`, x, branch, gamma, weight, mean, rstd, dh, dy, dx, dbranch and, for
    each chunk, the sums for bias, weight and gamma.

    Args:
        dtype: of branch and its gradient: float32, or uint16 for the bits of bfloat16.
    """

    def backward(at) -> None:
        sizes = carray(at[0], (5,), np.int64)
        N, C, B, chunks, _ = sizes
        x, branch, gamma = carray(at[1], (N, C), F32), carray(at[2], (N, C), dtype), carray(at[3], (C,), F32)
        weight, mean, rstd = carray(at[4], (C,), F32), carray(at[5], (B,), F32), carray(at[6], (B,), F32)
        dh, dy, dx = carray(at[7], (N, C), F32), carray(at[8], (N, C), F32), carray(at[9], (N, C), F32)
        dbranch, sums = carray(at[10], (N, C), dtype), carray(at[11], (chunks, 3, C), F32)
        z, own = np.empty(C, F32), np.empty((3, C), F32)
        while True:
            chunk = fetch_add(sizes[4:])
            if chunk >= chunks:
                break
            for s in range(B * chunk // chunks, B * (chunk + 1) // chunks):
                first, last = N // B * s, N // B * (s + 1)
                own[:] = 0
                for n in range(first, last):
                    normalize(x[n], branch[n], gamma, mean[s], rstd[s], z)
                    add_output(dy[n], z, own[0], own[1])
                along_one = along_z = F32(0)
                for k in range(C):
                    along_one += weight[k] * own[0, k]
                    along_z += weight[k] * own[1, k]
                along_one, along_z = along_one / F32((last - first) * C), along_z / F32((last - first) * C)
                for n in range(first, last):
                    normalize(x[n], branch[n], gamma, mean[s], rstd[s], z)
                    of_input(dh[n], dy[n], weight, z, rstd[s], along_one, along_z, dx[n])
                    of_branch(dx[n], branch[n], gamma, dbranch[n], own[2])
                sums[chunk] += own

    return unwrap(backward)
