"""The range of color values, found from their type and extremes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

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
    check_array(colors.shape, kind.itemsize, "the array of colors")
    rows = max(1, CHUNK_BYTES // max(1, math.prod(colors.shape[1:]) * kind.itemsize))
    extremes = [_extremes(colors, start, min(start + rows, len(colors))) for start in range(0, len(colors), rows)]
    low, high = min((low for low, _ in extremes), default=0.0), max((high for _, high in extremes), default=0.0)
    if kind.kind == "f" and (low < 0 or high <= 1 + 1e-3):  # rounding may exceed 1 slightly
        return 1.0
    scale = next((float(top) for top in (1, 255, 65535) if 0 <= low and high <= top), None)
    if scale is None:
        raise ValueError(f"colors are from {low:g} to {high:g}, expected up to 1, 255 or 65535, none negative")
    return scale


def _extremes(colors: np.ndarray | h5py.Dataset, start: int, stop: int) -> tuple[float, float]:
    """The smallest and the largest finite value of some rows, and zero."""
    try:
        part = np.asarray(colors[start:stop], dtype=np.float64)
    except OSError:  # skip damaged rows; reading such a cloud later names it
        if stop - start == 1:
            return 0.0, 0.0
        halves = [_extremes(colors, *half) for half in ((start, (start + stop) // 2), ((start + stop) // 2, stop))]
        return min(halves[0][0], halves[1][0]), max(halves[0][1], halves[1][1])
    part = part[np.isfinite(part)]
    return float(part.min(initial=0)), float(part.max(initial=0))
