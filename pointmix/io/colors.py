"""The range of color values, found from their type and extremes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pointmix.utils.limits import check_array

if TYPE_CHECKING:
    import h5py

CHUNK_BYTES = 16 << 20  # of colors read at a time


def color_scale(colors: np.ndarray | h5py.Dataset) -> float:
    """The value to divide colors by so that they are in [0, 1].

    255 for uint8 and 65535 for uint16. For other integers and floats the largest value decides: 1 if it is at most 1,
    else 255 or 65535. Floats with a negative value are taken as normalized already: 1.

    Args:
        colors: all colors of a file, so that a dark cloud is not mistaken for one in other units; read in chunks.
            Unreadable rows are skipped.

    Raises:
        ValueError: if the values are in none of these ranges, or take more bytes than the limit ARRAY_BYTES.
    """
    kind = colors.dtype.newbyteorder("=")
    if kind.kind == "b" or kind in (np.uint8, np.uint16):
        return 1.0 if kind.kind == "b" else float(np.iinfo(kind).max)
    low, high = 0.0, 0.0
    for part in _chunks(colors):
        low, high = min(low, part.min(initial=0)), max(high, part.max(initial=0))
    if kind.kind == "f" and (low < 0 or high <= 1 + 1e-3):  # rounding may exceed 1 slightly
        return 1.0
    scale = next((float(top) for top in (1, 255, 65535) if 0 <= low and high <= top), None)
    if scale is None:
        raise ValueError(f"colors are from {low:g} to {high:g}, expected up to 1, 255 or 65535, none negative")
    return scale


def told_scale(colors: np.ndarray | h5py.Dataset) -> float | None:
    """`color_scale`, or None if the values would be in another range too: 16-bit integers up to 255, which may be of 8
    bits, and whole numbers up to 1. None too if they are in no range."""
    try:
        scale = color_scale(colors)
        if colors.dtype.kind != "f" and scale == 65535:
            return scale if any(part.max(initial=0) > 255 for part in _chunks(colors)) else None
        if colors.dtype.kind not in "b" and scale == 1:
            return scale if any((part % 1 > 0).any() for part in _chunks(colors)) else None
    except ValueError:
        return None
    return scale


def _chunks(colors: np.ndarray | h5py.Dataset) -> Iterator[Float[np.ndarray, " M"]]:
    """The finite values, some rows at a time; rows that cannot be read are left out: reading such a cloud names it."""
    check_array(colors.shape, colors.dtype.itemsize, "the array of colors")
    rows = max(1, CHUNK_BYTES // max(1, math.prod(colors.shape[1:]) * colors.dtype.itemsize))
    for start in range(0, len(colors), rows):
        yield from _readable(colors, start, min(start + rows, len(colors)))


def _readable(colors: np.ndarray | h5py.Dataset, start: int, stop: int) -> Iterator[Float[np.ndarray, " M"]]:
    try:
        part = np.asarray(colors[start:stop], dtype=np.float64)
    except OSError:
        if stop - start > 1:
            yield from _readable(colors, start, (start + stop) // 2)
            yield from _readable(colors, (start + stop) // 2, stop)
        return
    yield part[np.isfinite(part)]
