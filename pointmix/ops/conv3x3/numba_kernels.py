"""3x3 convolutions by Winograd's algorithm F(2x2, 3x3), compiled by numba.

Two by two outputs y of a 4x4 tile d of the input, with 16 products per pair of channels instead of 36:

    y = A^T [(G g G^T) * (B^T d B)] A

          1  0 -1  0          1   0   0
    B^T = 0  1  1  0      G = 1/2 1/2 1/2     A^T = 1  1  1  0
          0 -1  1  0          1/2 -1/2 1/2          0  1 -1 -1
          0  1  0 -1          0   0   1

and the gradient of the weights is  G^T [sum over tiles of (B^T d B) * (A dy A^T)] G. Summed over channels, the products
of many tiles are 16 matrix products. Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
2016, section 4.1. A tile is given as the points on its 16 cells, row by row; an index of N stands for a cell without a
point, which counts as zero. All features are float32; channels are last.
"""

# mypy: ignore-errors
from __future__ import annotations

from inspect import unwrap

import numpy as np
from jaxtyping import Float, Int
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.blas import NO, YES, sgemm
from pointmix.ops.kernels.brgemm import brgemm_float32
from pointmix.ops.kernels.intrinsics import fetch_add
from pointmix.ops.kernels.jit import inlined

F32 = np.float32
ZERO, ONE = F32(0), F32(1)

# One result a loop: LLVM compiles loops to vector instructions only if few arrays may overlap.


@inlined
def add(a: Float[ndarray, "C"], b: Float[ndarray, "C"], out: Float[ndarray, "C"]) -> None:
    for c in range(out.shape[0]):
        out[c] = a[c] + b[c]


@inlined
def subtract(a: Float[ndarray, "C"], b: Float[ndarray, "C"], out: Float[ndarray, "C"]) -> None:
    for c in range(out.shape[0]):
        out[c] = a[c] - b[c]


@inlined
def add_3(
    a: Float[ndarray, "C"], b: Float[ndarray, "C"], d: Float[ndarray, "C"], plus: Float[ndarray, "C"],
    out: Float[ndarray, "C"],
) -> None:  # fmt: skip
    """out = a + b + d + plus"""
    for c in range(out.shape[0]):
        out[c] = a[c] + b[c] + d[c] + plus[c]


@inlined
def subtract_3(
    a: Float[ndarray, "C"], b: Float[ndarray, "C"], d: Float[ndarray, "C"], plus: Float[ndarray, "C"],
    out: Float[ndarray, "C"],
) -> None:  # fmt: skip
    """out = a - b - d + plus"""
    for c in range(out.shape[0]):
        out[c] = a[c] - b[c] - d[c] + plus[c]


@inlined
def row(x: Float[ndarray, "N C"], zero: Float[ndarray, "C"], n: int) -> Float[ndarray, "C"]:
    """Features of point n, zero if there is none."""
    return x[n] if n < x.shape[0] else zero


@inlined
def input_tile(
    x: Float[ndarray, "N C"], zero: Float[ndarray, "C"], points: Int[ndarray, "16"], half: Float[ndarray, "4 4 C"],
    v: Float[ndarray, "16 T C"], t: int,
) -> None:  # fmt: skip
    """v[:, t] = B^T d B of the features d of 4x4 points."""
    for q in range(4):
        d0, d1 = row(x, zero, points[q]), row(x, zero, points[4 + q])
        d2, d3 = row(x, zero, points[8 + q]), row(x, zero, points[12 + q])
        subtract(d0, d2, half[0, q])
        add(d1, d2, half[1, q])
        subtract(d2, d1, half[2, q])
        subtract(d1, d3, half[3, q])
    for p in range(4):
        subtract(half[p, 0], half[p, 2], v[4 * p, t])
        add(half[p, 1], half[p, 2], v[4 * p + 1, t])
        subtract(half[p, 2], half[p, 1], v[4 * p + 2, t])
        subtract(half[p, 1], half[p, 3], v[4 * p + 3, t])


@inlined
def output_tile(
    m: Float[ndarray, "16 T K"], t: int, bias: Float[ndarray, "K"], zero: Float[ndarray, "K"],
    half: Float[ndarray, "4 4 K"], y: Float[ndarray, "N K"], points: Int[ndarray, "16"],
) -> None:  # fmt: skip
    """The features y of the 2x2 points in the middle are A^T m[:, t] A + bias."""
    for q in range(4):
        add_3(m[q, t], m[4 + q, t], m[8 + q, t], zero, half[0, q])
        subtract_3(m[4 + q, t], m[8 + q, t], m[12 + q, t], zero, half[1, q])
    for p in range(2):
        left, right = points[4 * p + 5], points[4 * p + 6]
        if left < y.shape[0]:
            add_3(half[p, 0], half[p, 1], half[p, 2], bias, y[left])
        if right < y.shape[0]:
            subtract_3(half[p, 1], half[p, 2], half[p, 3], bias, y[right])


@inlined
def gradient_tile(
    dy: Float[ndarray, "N K"], zero: Float[ndarray, "K"], points: Int[ndarray, "16"], half: Float[ndarray, "4 4 K"],
    g: Float[ndarray, "16 T K"], t: int,
) -> None:  # fmt: skip
    """g[:, t] = A dy A^T of the 2x2 points in the middle."""
    for q in range(2):
        d0, d1 = row(dy, zero, points[5 + q]), row(dy, zero, points[9 + q])
        add(d0, zero, half[0, q])
        add(d0, d1, half[1, q])
        subtract(d0, d1, half[2, q])
        subtract(zero, d1, half[3, q])
    for p in range(4):
        add(half[p, 0], zero, g[4 * p, t])
        add(half[p, 0], half[p, 1], g[4 * p + 1, t])
        subtract(half[p, 0], half[p, 1], g[4 * p + 2, t])
        subtract(zero, half[p, 1], g[4 * p + 3, t])


def forward(at) -> None:
    """y = x * g + bias. Each thread runs this until all chunks of the tiles are done.

    Takes a pointer to the addresses of `Sizes`, x (N, C), the points of the tiles (T, 16), u = G g G^T (16, C, K),
    bias (K), y (N, K) and room for (B^T d B) and for the products.
    """
    sizes = carray(at[0], (9,), np.int64)
    N, C, K, T, tile, chunks, _, product, gemm = sizes
    x, tiles = carray(at[1], (N, C), F32), carray(at[2], (T, 16), np.int64)
    u, bias, y = carray(at[3], (16, C, K), F32), carray(at[4], (K,), F32), carray(at[5], (N, K), F32)
    every_v, every_m = carray(at[6], (chunks, 16, tile, C), F32), carray(at[7], (chunks, 16, tile, K), F32)
    half_c, half_k = np.empty((4, 4, C), F32), np.empty((4, 4, K), F32)
    zero_c, zero_k = np.zeros(C, F32), np.zeros(K, F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        v, m, end = every_v[chunk], every_m[chunk], T * (chunk + 1) // chunks
        for start in range(T * chunk // chunks, end, tile):
            P = min(tile, end - start)
            for t in range(P):
                input_tile(x, zero_c, tiles[start + t], half_c, v, t)
            for s in range(16):
                vp, up, mp = v[s].ctypes.data, u[s].ctypes.data, m[s].ctypes.data
                if product:
                    brgemm_float32(product, P, K, C, C, K, K, 0, vp, up, mp)
                else:
                    sgemm(gemm, NO, NO, K, P, C, up, K, vp, C, ZERO, mp, K)
            for t in range(P):
                output_tile(m, t, bias, zero_k, half_k, y, tiles[start + t])


def weight_gradient(at) -> None:
    """For each chunk the sum of (B^T d B) * (A dy A^T). Each thread runs this until all are done.

    Takes a pointer to the addresses of `Sizes`, x (N, C), the points of the tiles (T, 16), dy (N, K), the sums (chunks,
    16, C, K) and room for both factors.
    """
    sizes = carray(at[0], (9,), np.int64)
    N, C, K, T, tile, chunks, _, _, gemm = sizes
    x, tiles, dy = carray(at[1], (N, C), F32), carray(at[2], (T, 16), np.int64), carray(at[3], (N, K), F32)
    every_du = carray(at[4], (chunks, 16, C, K), F32)
    every_v, every_g = carray(at[5], (chunks, 16, tile, C), F32), carray(at[6], (chunks, 16, tile, K), F32)
    half_c, half_k = np.empty((4, 4, C), F32), np.empty((4, 4, K), F32)
    zero_c, zero_k = np.zeros(C, F32), np.zeros(K, F32)
    while True:
        chunk = fetch_add(sizes[6:])
        if chunk >= chunks:
            break
        v, g, du, end = every_v[chunk], every_g[chunk], every_du[chunk], T * (chunk + 1) // chunks
        for start in range(T * chunk // chunks, end, tile):
            P = min(tile, end - start)
            for t in range(P):
                input_tile(x, zero_c, tiles[start + t], half_c, v, t)
                gradient_tile(dy, zero_k, tiles[start + t], half_k, g, t)
            for s in range(16):
                vp, gp, dup = v[s].ctypes.data, g[s].ctypes.data, du[s].ctypes.data
                sgemm(gemm, NO, YES, K, C, P, gp, K, vp, C, ONE, dup, K)


forward, weight_gradient = unwrap(forward), unwrap(weight_gradient)
