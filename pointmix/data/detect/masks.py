"""Masks as COCO's run lengths: down the columns, pixels outside and inside in turn, compressed to text.

The library that computes AP computes them too: faster-coco-eval, or pycocotools where it cannot be imported. Both trust
their input, and write beyond the mask where run lengths do not fit it, so what comes from a file is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, UInt8

from pointmix.data.detect.sample import Rle
from pointmix.utils.limits import check_array, check_limit

LONGEST_NUMBER = 7  # characters of a compressed run length: 35 bits


def _library() -> ModuleType:
    try:
        return import_module("faster_coco_eval.core.mask")
    except ImportError:  # no wheel for this platform
        return import_module("pycocotools.mask")


COCO = _library()


def encode(masks: Bool[np.ndarray, "M H W"] | UInt8[np.ndarray, "M H W"]) -> tuple[Rle, ...]:
    """The run lengths of masks with values 0 and 1."""
    if not len(masks):
        return ()
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1), dtype=np.uint8)  # (M, W, H)
    return tuple(COCO.encode(columns.T))


def decode(masks: Sequence[Rle], size: tuple[int, int]) -> UInt8[np.ndarray, "M H W"]:
    """The masks as 0 and 1.

    Args:
        size: H, W, which is only needed if there is no mask.

    Raises:
        TooLarge: if they take more bytes than the limit ARRAY_BYTES.
    """
    if not masks:
        return np.zeros((0, *size), dtype=np.uint8)
    check_array((len(masks), *masks[0]["size"]), 1, "the masks of an image")
    return np.ascontiguousarray(COCO.decode(list(masks)).transpose(2, 0, 1))


def area(masks: Sequence[Rle]) -> Float64[np.ndarray, " M"]:
    """Pixels of each mask."""
    return np.asarray(COCO.area(list(masks)), dtype=np.float64).reshape(len(masks))


def boxes(masks: Sequence[Rle]) -> Float64[np.ndarray, "M 4"]:
    """Corners x1, y1, x2, y2 of the smallest box around each mask; zeros for an empty one."""
    found = np.asarray(COCO.toBbox(list(masks)), dtype=np.float64).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def from_polygons(polygons: Sequence[Float[np.ndarray, "_ 2"]], size: tuple[int, int]) -> Rle:
    """The union of polygons, as COCO's tools draw them.

    Args:
        polygons: corners x, y in pixels, finite, at least three each.
        size: H, W of the image; what lies outside is cut off.

    Raises:
        TooLarge: if their outlines take more bytes than the limit ARRAY_BYTES.
    """
    outline = 0.0  # pixels, from the corner of the image on: COCO's corners are ints
    for polygon in polygons:
        closed = np.concatenate([np.zeros((1, 2)), polygon, polygon[:1]])
        outline += float(abs(np.diff(closed, axis=0)).max(1).sum()) + len(polygon)
    size_in_bytes = int(min(outline * 5 * 16, 2**62))  # COCO takes five steps a pixel
    check_limit("ARRAY_BYTES", size_in_bytes, "the outline of an object")
    flat = [polygon.astype(np.float64).ravel().tolist() for polygon in polygons]
    return _one(COCO.merge(COCO.frPyObjects(flat, *size)))


def from_counts(counts: object, size: tuple[int, int]) -> Rle:
    """Run lengths from a file, checked.

    Args:
        counts: a list of whole numbers, or COCO's compressed text.
        size: H, W.

    Raises:
        ValueError: if they are neither, are negative, or do not sum to H x W.
    """
    height, width = size
    if isinstance(counts, str | bytes):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("run lengths are not whole numbers from 0, or COCO's compressed text")
    if sum(counts) != height * width:
        raise ValueError(f"run lengths sum to {sum(counts)}, expected {height} x {width}")
    return _one(COCO.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def from_numbers(numbers: Integer[np.ndarray, "H W"]) -> tuple[Int64[np.ndarray, " M"], tuple[Rle, ...]]:
    """The masks of numbered objects: the numbers in it, rising, without 0, and the mask of each."""
    height, width = numbers.shape
    flat = numbers.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # of runs of one number
    ends = np.append(starts[1:], flat.size)
    value = flat[starts]
    found, masks = np.unique(value[value != 0]), []
    for rows in np.split(order := np.argsort(value, kind="stable"), np.searchsorted(value[order], found)):
        if value[rows[:1]].any():
            edges = np.stack([starts[rows], ends[rows]], axis=1).ravel()
            counts = np.diff(edges, prepend=0).tolist() + [flat.size - int(edges[-1])] * int(edges[-1] < flat.size)
            masks.append(_one(COCO.frPyObjects({"size": [height, width], "counts": counts}, height, width)))
    return found.astype(np.int64), tuple(masks)


def _one(mask: Rle | list[Rle]) -> Rle:
    return mask[0] if isinstance(mask, list) else mask


def _decompressed(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character, differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for byte in text.encode() if isinstance(text, str) else text:
        digit = byte - 48
        if not 0 <= digit < 64 or shift >= 5 * LONGEST_NUMBER:
            raise ValueError("run lengths are not COCO's compressed text")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the last character of a number
            value -= (digit >> 4 & 1) << shift  # its sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths are cut off")
    return counts
