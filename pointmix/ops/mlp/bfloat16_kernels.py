"""`float32_kernels` for bfloat16: features, hidden layers and weights are rounded to it, all sums are float32.

`brgemm` counts rows first, and takes its second factor in pairs of rows: element (i, j) of a matrix (K, N) is number
i % 2 of pair (i // 2, j). uint16 arrays hold bfloat16 bits, uint32 arrays pairs of them.
"""

# mypy: ignore-errors
from __future__ import annotations

from inspect import unwrap

import numpy as np
from jaxtyping import Float, UInt16, UInt32
from numba import carray
from numpy import ndarray

from pointmix.ops.gelu.numba_kernels import normal
from pointmix.ops.kernels.brgemm import brgemm, release
from pointmix.ops.kernels.intrinsics import fetch_add, narrow
from pointmix.ops.kernels.jit import inlined

F32, BITS = np.float32, np.uint16(0)


@inlined
def pair(low: float, high: float) -> np.uint32:
    """Two numbers as bfloat16."""
    return np.uint32(narrow(low, BITS)) | (np.uint32(narrow(high, BITS)) << np.uint32(16))


@inlined
def add_gelu(h: Float[ndarray, "P H"], b: Float[ndarray, "H"], a: UInt16[ndarray, "P H"]) -> None:
    """a = gelu(h + b)"""
    for n in range(h.shape[0]):
        for k in range(h.shape[1]):
            x = h[n, k] + b[k]
            cdf, _ = normal(x)
            h[n, k] = x * cdf
        for k in range(h.shape[1]):
            a[n, k] = narrow(h[n, k], BITS)


@inlined
def add_gelu_backward(
    h: Float[ndarray, "P H"], b: Float[ndarray, "H"], dh: Float[ndarray, "P H"], a: UInt32[ndarray, "P2 H"],
    g: UInt16[ndarray, "P H"], pairs: UInt32[ndarray, "P2 H"], db: Float[ndarray, "H"],
) -> None:  # fmt: skip
    """a = gelu(h + b) in pairs; g, and in pairs, the gradient of h + b, where dh is that of a; db grows by its sum.

    Loops with more arrays at once would not be compiled to vector instructions.
    """
    for n in range(0, h.shape[0], 2):
        for r in range(n, n + 2):
            for k in range(h.shape[1]):
                x = h[r, k] + b[k]
                cdf, pdf = normal(x)
                dx = dh[r, k] * (cdf + x * pdf)
                h[r, k], dh[r, k] = x * cdf, dx
                db[k] += dx
            for k in range(h.shape[1]):
                g[r, k] = narrow(dh[r, k], BITS)
        for k in range(h.shape[1]):
            a[n // 2, k] = pair(h[n, k], h[n + 1, k])
        for k in range(h.shape[1]):
            pairs[n // 2, k] = pair(dh[n, k], dh[n + 1, k])


def forward(at) -> None:
    """`float32_kernels.forward`; w1 (C/2, H) and w2 (H/2, K) are in pairs.

    Takes a pointer to the addresses of `Sizes`, x, w1, b1, w2, b2, plus, y and room for the hidden layer, before the
    GELU in float32 and after it in bfloat16.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, has_plus, product, finish = sizes
    x, w1, b1 = carray(at[1], (N, C), np.uint16), carray(at[2], (C // 2, H), np.uint32), carray(at[3], (H,), F32)
    w2, b2 = carray(at[4], (H // 2, K), np.uint32), carray(at[5], (K,), F32)
    plus, y = carray(at[6], (N, K), F32), carray(at[7], (N, K), F32)
    every_h, every_a = carray(at[8], (chunks, tile, H), F32), carray(at[9], (chunks, tile, H), np.uint16)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        h, a, end = every_h[chunk], every_a[chunk], N * (chunk + 1) // chunks
        for start in range(N * chunk // chunks, end, tile):
            P = min(tile, end - start)
            brgemm(product, P, H, C, C, H, H, 0, x[start:].ctypes.data, w1.ctypes.data, h.ctypes.data)
            add_gelu(h[:P], b1, a[:P])
            for n in range(start, start + P):
                for k in range(K):
                    y[n, k] = plus[n, k] + b2[k] if has_plus else b2[k]
            brgemm(product, P, K, H, H, K, K, 1, a.ctypes.data, w2.ctypes.data, y[start:].ctypes.data)
        release(finish)


def backward(at) -> None:
    """`float32_kernels.backward`; w1 (C/2, H), w2 (K/2, H) and w1_out (H/2, C), which is w1 once more, are in pairs.

    Takes a pointer to the addresses of `Sizes`, x, w1, b1, w2, w1_out, dy, dx, dw1 (C, H), db1, dw2, db2, and room:
    for the hidden layer and its gradient in float32 and in bfloat16, the latter once more in pairs, and for x and dy
    transposed.
    """
    sizes = carray(at[0], (10,), np.int64)
    N, C, H, K, tile, chunks, _, _, product, finish = sizes
    x, w1, b1 = carray(at[1], (N, C), np.uint16), carray(at[2], (C // 2, H), np.uint32), carray(at[3], (H,), F32)
    w2, w1_out = carray(at[4], (K // 2, H), np.uint32), carray(at[5], (H // 2, C), np.uint32)
    dy, dx = carray(at[6], (N, K), F32), carray(at[7], (N, C), np.uint16)
    dw1, db1 = carray(at[8], (chunks, C, H), F32), carray(at[9], (chunks, H), F32)
    dw2, db2 = carray(at[10], (chunks, K, H), F32), carray(at[11], (chunks, K), F32)
    every_h, every_dh = carray(at[12], (chunks, tile, H), F32), carray(at[13], (chunks, tile, H), F32)
    every_a, every_g = carray(at[14], (chunks, tile // 2, H), np.uint32), carray(at[15], (chunks, tile, H), np.uint16)
    every_pairs = carray(at[16], (chunks, tile // 2, H), np.uint32)
    every_t = carray(at[17], (chunks, (C + 2 * K) * tile), np.uint16)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        h, dh, a, g, pairs = every_h[chunk], every_dh[chunk], every_a[chunk], every_g[chunk], every_pairs[chunk]
        x_t = every_t[chunk, : C * tile].reshape(C, tile)
        dy_t = every_t[chunk, C * tile : (C + K) * tile].reshape(K, tile)
        dy16 = every_t[chunk, (C + K) * tile :].reshape(tile, K)
        end = N * (chunk + 1) // chunks
        for start in range(N * chunk // chunks, end, tile):
            P = min(tile, end - start)
            even = P + P % 2
            for n in range(P):
                for k in range(C):
                    x_t[k, n] = x[start + n, k]
                for k in range(K):
                    d = dy[start + n, k]
                    dy16[n, k] = narrow(d, BITS)
                    dy_t[k, n] = dy16[n, k]
                    db2[chunk, k] += d
            if P < even:  # another point without a gradient
                x_t[:, P], dy_t[:, P], dy16[P], h[P] = 0, 0, 0, 0
            brgemm(product, P, H, C, C, H, H, 0, x[start:].ctypes.data, w1.ctypes.data, h.ctypes.data)
            brgemm(product, even, H, K, K, H, H, 0, dy16.ctypes.data, w2.ctypes.data, dh.ctypes.data)
            add_gelu_backward(h[:even], b1, dh[:even], a, g, pairs, db1[chunk])
            brgemm(product, K, H, even, tile, H, H, 1, dy_t.ctypes.data, a.ctypes.data, dw2[chunk].ctypes.data)
            brgemm(product, C, H, even, tile, H, H, 1, x_t.ctypes.data, pairs.ctypes.data, dw1[chunk].ctypes.data)
            brgemm(product, P, C, H, H, C, C, 0, g.ctypes.data, w1_out.ctypes.data, h.ctypes.data)  # h is free
            flat = h.reshape(-1)
            for n in range(P):
                for k in range(C):
                    dx[start + n, k] = narrow(flat[n * C + k], BITS)
        release(finish)


forward, backward = unwrap(forward), unwrap(backward)
