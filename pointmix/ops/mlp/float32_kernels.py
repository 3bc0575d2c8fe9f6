"""The MLP of a block, tile by tile of the points, compiled by numba: all of a tile stays in the cache of one core.

All arrays are float32 and lie row by row.
"""

# mypy: ignore-errors
from __future__ import annotations

from inspect import unwrap

import numpy as np
from jaxtyping import Float, Int
from numba import carray
from numpy import ndarray

from pointmix.ops.gelu.numba_kernels import normal
from pointmix.ops.kernels.blas import NO, sgemm
from pointmix.ops.kernels.brgemm import brgemm_float32
from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined

F32 = np.float32
ZERO, ONE = F32(0), F32(1)


@inlined
def multiply(
    sizes: Int[ndarray, "_"], points: int, a: Float[ndarray, "P Q"], b: Float[ndarray, "Q R"], add: bool,
    c: Float[ndarray, "P R"],
) -> None:  # fmt: skip
    """c = a b, added to it if `add`. oneDNN, where it has the product, multiplies full tiles only: it compiles a kernel
    for each shape."""
    (P, Q), R, tile, gemm, product = a.shape, b.shape[1], sizes[4], sizes[8], sizes[9]
    ap, bp, cp = a.ctypes.data, b.ctypes.data, c.ctypes.data
    lda, ldb, ldc = a.strides[0] // 4, b.strides[0] // 4, c.strides[0] // 4
    if product != 0 and points == tile:
        brgemm_float32(product, P, R, Q, lda, ldb, ldc, 1 if add else 0, ap, bp, cp)
    else:  # sgemm counts columns first, so it sees the transposed matrices
        sgemm(gemm, NO, NO, R, P, Q, bp, ldb, ap, lda, ONE if add else ZERO, cp, ldc)


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

    Takes a pointer to the addresses of `Sizes`, x, w1 and w2 transposed, b1, b2, plus, y and room for the hidden layer.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, has_plus, _, _ = sizes
    x, w1, w2 = carray(at[1], (N, C), F32), carray(at[2], (C, H), F32), carray(at[3], (H, K), F32)
    b1, b2 = carray(at[4], (H,), F32), carray(at[5], (K,), F32)
    plus, y = carray(at[6], (N, K), F32), carray(at[7], (N, K), F32)
    scratch = carray(at[8], (chunks, tile, H), F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        end = N * (chunk + 1) // chunks
        for start in range(N * chunk // chunks, end, tile):
            stop = min(start + tile, end)
            h = scratch[chunk, : stop - start]
            multiply(sizes, stop - start, x[start:stop], w1, False, h)
            add_gelu(h, b1)
            for n in range(start, stop):
                for k in range(K):
                    y[n, k] = plus[n, k] + b2[k] if has_plus else b2[k]
            multiply(sizes, stop - start, h, w2, True, y[start:stop])


def backward(at) -> None:
    """dx of `forward`, and for each chunk the gradients of the weights. Each thread runs this until all are done.

    Takes a pointer to the addresses of `Sizes`, x, w1, w1 transposed, b1, w2, dy, dx, dw1 transposed, db1, dw2, db2 and
    room: for two layers, and for x and dy transposed.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, _, _, _ = sizes
    x, w1, w1_t = carray(at[1], (N, C), F32), carray(at[2], (H, C), F32), carray(at[3], (C, H), F32)
    b1, w2 = carray(at[4], (H,), F32), carray(at[5], (K, H), F32)
    dy, dx = carray(at[6], (N, K), F32), carray(at[7], (N, C), F32)
    dw1, db1 = carray(at[8], (chunks, C, H), F32), carray(at[9], (chunks, H), F32)
    dw2, db2 = carray(at[10], (chunks, K, H), F32), carray(at[11], (chunks, K), F32)
    layers, columns = carray(at[12], (chunks, 2, tile, H), F32), carray(at[13], (chunks, C + K, tile), F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        end = N * (chunk + 1) // chunks
        for start in range(N * chunk // chunks, end, tile):
            stop = min(start + tile, end)
            P = stop - start
            h, dh = layers[chunk, 0, :P], layers[chunk, 1, :P]
            x_t, dy_t = columns[chunk, :C, :P], columns[chunk, C:, :P]
            for n in range(P):
                for k in range(C):
                    x_t[k, n] = x[start + n, k]
                for k in range(K):
                    dy_t[k, n] = dy[start + n, k]
                    db2[chunk, k] += dy[start + n, k]
            multiply(sizes, P, x[start:stop], w1_t, False, h)
            multiply(sizes, P, dy[start:stop], w2, False, dh)
            add_gelu_backward(h, b1, dh, db1[chunk])
            multiply(sizes, P, dy_t, h, True, dw2[chunk])
            multiply(sizes, P, x_t, dh, True, dw1[chunk])
            multiply(sizes, P, dh, w1, False, dx[start:stop])


forward, backward = unwrap(forward), unwrap(backward)
