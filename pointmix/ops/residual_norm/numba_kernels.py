"""Gradients of a scaled residual and of the normalization after it, compiled by numba. Each thread passes twice over
each of its sets; at the second pass most of the set is still in the cache.

With h = x + gamma * branch, z = (h - mean) * rstd, y = weight * z + bias and dz = weight * dy, and means over the
points and channels of a set:

    dx = dh + rstd * (dz - mean(dz) - z * mean(dz * z)),  dbranch = gamma * dx
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
def add_affine_gradients(
    dy: Float[ndarray, "C"], z: Float[ndarray, "C"], dbias: Float[ndarray, "C"], dweight: Float[ndarray, "C"]
) -> None:
    for k in range(z.shape[0]):
        dbias[k] += dy[k]
        dweight[k] += dy[k] * z[k]


@inlined
def input_gradient(
    dh: Float[ndarray, "C"], dy: Float[ndarray, "C"], weight: Float[ndarray, "C"], z: Float[ndarray, "C"],
    rstd: float, mean_dz: float, mean_dz_z: float, dx: Float[ndarray, "C"],
) -> None:  # fmt: skip
    for k in range(dx.shape[0]):
        dx[k] = dh[k] + rstd * (weight[k] * dy[k] - mean_dz - z[k] * mean_dz_z)


@inlined
def branch_gradient(
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
                    add_affine_gradients(dy[n], z, own[0], own[1])
                mean_dz = mean_dz_z = F32(0)
                for k in range(C):
                    mean_dz += weight[k] * own[0, k]
                    mean_dz_z += weight[k] * own[1, k]
                mean_dz, mean_dz_z = mean_dz / F32((last - first) * C), mean_dz_z / F32((last - first) * C)
                for n in range(first, last):
                    normalize(x[n], branch[n], gamma, mean[s], rstd[s], z)
                    input_gradient(dh[n], dy[n], weight, z, rstd[s], mean_dz, mean_dz_z, dx[n])
                    branch_gradient(dx[n], branch[n], gamma, dbranch[n], own[2])
                for i in range(3):
                    for k in range(C):
                        sums[chunk, i, k] += own[i, k]

    return unwrap(backward)
