"""For each point the first center of the largest product, compiled by numba: products of some points and centers at a
time stay in the cache of a core.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float, Int
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.blas import NO, YES, sgemm
from pointmix.ops.kernels.intrinsics import fetch_add, widen
from pointmix.ops.kernels.jit import inlined

POINTS, CENTERS = 256, 64  # at a time
FULL = 16  # sgemm adds up in one order in full groups of points and centers; equal centers must have equal products
ZERO = np.float32(0)


class Sizes(ctypes.Structure):
    """Sets, points and centers of a set, channels; address of sgemm; chunks, and a counter of the tiles of points that
    were taken."""

    _fields_ = [(name, ctypes.c_int64) for name in "B N K C gemm chunks counter".split()]


@inlined
def update(
    products: Float[ndarray, "W"], offset: float, k: int, best: Float[ndarray, "W"], row: Int[ndarray, "W"]
) -> None:  # fmt: skip
    """Points take center k where it is larger than the best so far. A NaN is, and nothing is larger than it."""
    for n in range(products.shape[0]):
        value, old = products[n] + offset, best[n]
        better = (old == old) & ~(value <= old)
        best[n] = value if better else old
        row[n] = k if better else row[n]


@inlined
def aligned(rows: int, columns: int) -> Float[ndarray, "R C"]:
    """Room at a multiple of 64 bytes: how sgemm adds up may depend on where its matrices lie in a line of the cache."""
    room = np.empty(rows * columns + 16, np.float32)
    skip = -room.ctypes.data % 64 // 4
    return room[skip : skip + rows * columns].reshape(rows, columns)


@inlined
def full(number: int) -> int:
    """The number of rows that sgemm is given, some of them left from before."""
    return -(-number // FULL) * FULL


def work_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all tiles of points are done.

    It takes a pointer to the addresses of `Sizes`, points, centers and offsets (float32), and the centers found
    (int64).

    Args:
        dtype: of points and centers: float32, or uint16 for the bits of bfloat16.
    """
    fields = len(Sizes._fields_)

    def work(at) -> None:
        sizes = carray(at[0], (fields,), np.int64)
        B, N, K, C, gemm, _, _ = sizes
        x, key = carray(at[1], (B, N, C), dtype), carray(at[2], (B, K, C), dtype)
        offset, found = carray(at[3], (B, K), np.float32), carray(at[4], (B, N), np.int64)
        points, centers, products = aligned(POINTS, C), aligned(CENTERS, C), aligned(CENTERS, POINTS)
        points[:], centers[:] = 0, 0
        best, row = np.empty(POINTS, np.float32), np.empty(POINTS, np.int32)
        tiles = -(-N // POINTS)
        while True:
            tile = fetch_add(sizes[fields - 1 :])
            if tile >= B * tiles:
                break
            s, start = tile // tiles, tile % tiles * POINTS
            width = min(POINTS, N - start)
            for n in range(width):
                for c in range(C):
                    points[n, c] = widen(x[s, start + n, c])
            best[:], row[:] = -np.inf, 0
            for first in range(0, K, CENTERS):
                height = min(CENTERS, K - first)
                for k in range(height):
                    for c in range(C):
                        centers[k, c] = widen(key[s, first + k, c])
                sgemm(
                    gemm, YES, NO, full(width), full(height), C, points.ctypes.data, C, centers.ctypes.data, C, ZERO,
                    products.ctypes.data, POINTS,
                )  # fmt: skip
                for k in range(height):
                    update(products[k, :width], offset[s, first + k], np.int32(first + k), best, row)
            for n in range(width):
                found[s, start + n] = row[n]

    return unwrap(work)
