"""The MLP of a block, tile by tile of the points, compiled by numba: all of a tile stays in the cache of one core.

All arrays are float32 and lie row by row, so that sgemm, which counts columns first, sees their transposes.
"""

# mypy: ignore-errors
from __future__ import annotations

from inspect import unwrap

import numpy as np
from jaxtyping import Float
from numba import carray
from numpy import ndarray

from pointmix.ops.gelu.numba_kernels import normal
from pointmix.ops.kernels.blas import NO, YES, sgemm
from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined

F32 = np.float32
ZERO, ONE = F32(0), F32(1)


@inlined
def add_gelu(h: Float[ndarray, "P H"], b: Float[ndarray, "H"]) -> None:
    """h = gelu(h + b)"""
    for n in range(h.shape[0]):
        for k in range(h.shape[1]):
            x = h[n, k] + b[k]
            cdf, _ = normal(x)
            h[n, k] = x * cdf


@inlined
def add_gelu_backward(
    h: Float[ndarray, "P H"], b: Float[ndarray, "H"], dh: Float[ndarray, "P H"], db: Float[ndarray, "H"]
) -> None:
    """h = gelu(h + b); dh becomes the gradient of h + b, db grows by its sum."""
    for n in range(h.shape[0]):
        for k in range(h.shape[1]):
            x = h[n, k] + b[k]
            cdf, pdf = normal(x)
            dx = dh[n, k] * (cdf + x * pdf)
            h[n, k], dh[n, k] = x * cdf, dx
            db[k] += dx


def forward(at) -> None:
    """y = w2 gelu(w1 x + b1) + b2 + plus. Each thread runs this until all chunks are done.

    Takes a pointer to the addresses of `Sizes`, x, w1, b1, w2, b2, plus, y and room for the hidden layer.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, has_plus, gemm, _ = sizes
    x, w1, b1 = carray(at[1], (N, C), F32), carray(at[2], (H, C), F32), carray(at[3], (H,), F32)
    w2, b2 = carray(at[4], (K, H), F32), carray(at[5], (K,), F32)
    plus, y = carray(at[6], (N, K), F32), carray(at[7], (N, K), F32)
    scratch = carray(at[8], (chunks, tile, H), F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        h, end = scratch[chunk], N * (chunk + 1) // chunks
        for start in range(N * chunk // chunks, end, tile):
            P = min(tile, end - start)
            xp, yp, hp = x[start:].ctypes.data, y[start:].ctypes.data, h.ctypes.data
            sgemm(gemm, YES, NO, H, P, C, w1.ctypes.data, C, xp, C, ZERO, hp, H)
            add_gelu(h[:P], b1)
            for n in range(start, start + P):
                for k in range(K):
                    y[n, k] = plus[n, k] + b2[k] if has_plus else b2[k]
            sgemm(gemm, YES, NO, K, P, H, w2.ctypes.data, H, hp, H, ONE, yp, K)


def backward(at) -> None:
    """dx of `forward`, and for each chunk the gradients of the weights. Each thread runs this until all are done.

    Takes a pointer to the addresses of `Sizes`, x, w1, b1, w2, dy, dx, dw1, db1, dw2, db2 and room for two layers.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, _, gemm, _ = sizes
    x, w1, b1 = carray(at[1], (N, C), F32), carray(at[2], (H, C), F32), carray(at[3], (H,), F32)
    w2, dy, dx = carray(at[4], (K, H), F32), carray(at[5], (N, K), F32), carray(at[6], (N, C), F32)
    dw1, db1 = carray(at[7], (chunks, H, C), F32), carray(at[8], (chunks, H), F32)
    dw2, db2 = carray(at[9], (chunks, K, H), F32), carray(at[10], (chunks, K), F32)
    scratch = carray(at[11], (chunks, 2, tile, H), F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        h, dh, end = scratch[chunk, 0], scratch[chunk, 1], N * (chunk + 1) // chunks
        dw1p, dw2p, hp, dhp = dw1[chunk].ctypes.data, dw2[chunk].ctypes.data, h.ctypes.data, dh.ctypes.data
        for start in range(N * chunk // chunks, end, tile):
            P = min(tile, end - start)
            xp, dxp, dyp = x[start:].ctypes.data, dx[start:].ctypes.data, dy[start:].ctypes.data
            sgemm(gemm, YES, NO, H, P, C, w1.ctypes.data, C, xp, C, ZERO, hp, H)
            sgemm(gemm, NO, NO, H, P, K, w2.ctypes.data, H, dyp, K, ZERO, dhp, H)
            add_gelu_backward(h[:P], b1, dh[:P], db1[chunk])
            sgemm(gemm, NO, YES, H, K, P, hp, H, dyp, K, ONE, dw2p, H)
            sgemm(gemm, NO, YES, C, H, P, xp, C, dhp, H, ONE, dw1p, C)
            sgemm(gemm, NO, NO, C, P, H, w1.ctypes.data, C, dhp, H, ZERO, dxp, C)
            for n in range(start, start + P):
                for k in range(K):
                    db2[chunk, k] += dy[n, k]


forward, backward = unwrap(forward), unwrap(backward)
