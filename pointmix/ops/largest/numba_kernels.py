"""The row of the largest entry of each column, compiled by numba to vector instructions over the columns."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
from jaxtyping import Float, Int
from numba import carray
from numpy import ndarray

from pointmix.ops.kernels.intrinsics import fetch_add, widen
from pointmix.ops.kernels.jit import inlined

WIDTH = 256  # columns at a time


@inlined
def update(
    products: Float[ndarray, "W"], offset: float, k: int, best: Float[ndarray, "W"], row: Int[ndarray, "W"]
) -> None:  # fmt: skip
    """Columns take row k where it is larger than the best so far. A NaN is, and nothing is larger than it."""
    for n in range(products.shape[0]):
        value, old = widen(products[n]) + offset, best[n]
        better = (old == old) & ~(value <= old)
        best[n] = value if better else old
        row[n] = k if better else row[n]


@inlined
def search(
    products: Float[ndarray, "K N"], offset: Float[ndarray, "K"], first: int, last: int, best: Float[ndarray, "W"],
    row: Int[ndarray, "W"], found: Int[ndarray, "N"],
) -> None:  # fmt: skip
    """The first row of the largest products + offset in the columns from first to last."""
    best[:], row[:] = -np.inf, 0
    for k in range(products.shape[0]):
        update(products[k, first:last], offset[k], np.int32(k), best, row)
    found[first:last] = row[: last - first]


def work_for(dtype: type) -> Callable:
    """A function for numba to compile, which each thread runs until all chunks of the columns are done.

    It takes a pointer to the addresses of the sizes (rows, columns, chunks, counter of the chunks taken), the products,
    the offsets (float32) and the rows found (int64).

    Args:
        dtype: of the products: float32, or uint16 for the bits of bfloat16.
    """

    def work(at) -> None:
        sizes = carray(at[0], (4,), np.int64)
        rows, columns, chunks, _ = sizes
        products, offset = carray(at[1], (rows, columns), dtype), carray(at[2], (rows,), np.float32)
        found = carray(at[3], (columns,), np.int64)
        best, row = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.int32)
        while True:
            chunk = fetch_add(sizes[3:])
            if chunk >= chunks:
                break
            end = columns * (chunk + 1) // chunks
            for first in range(columns * chunk // chunks, end, WIDTH):
                search(products, offset, first, min(first + WIDTH, end), best, row, found)

    return unwrap(work)
