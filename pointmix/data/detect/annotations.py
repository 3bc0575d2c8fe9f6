"""Objects as files describe them, and what is left out of them."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from pointmix.data.detect import masks as rle
from pointmix.data.detect.sample import Objects, Rle

FEWEST_CORNERS = 3  # of a polygon


@dataclass(frozen=True)
class Annotation:
    """An object.

    Args:
        box: corners x1, y1, x2, y2, in pixels or in sides of the image; they may lie outside.
        label: class from 0.
        segment: polygons in the same unit, or a mask; None if there is a box only.
        crowd, area: see `Objects`; an area of None is that of the mask, or of the box.
    """

    box: tuple[float, float, float, float]
    label: int
    segment: tuple[Float64[np.ndarray, "_ 2"], ...] | Rle | None = None
    crowd: bool = False
    area: float | None = None

    def has_area(self, size: tuple[float, float]) -> bool:
        """Whether a part of the box is in an image of H, W."""
        x1, y1, x2, y2 = self.box
        return min(x2, size[1]) > max(x1, 0) and min(y2, size[0]) > max(y1, 0)

    def scaled(self, height: int, width: int) -> Annotation:
        """In pixels, if it was in sides of the image."""
        x1, y1, x2, y2 = self.box
        segment = self.segment
        if isinstance(segment, tuple):
            segment = tuple(polygon * (width, height) for polygon in segment)
        return Annotation((x1 * width, y1 * height, x2 * width, y2 * height), self.label, segment, self.crowd)


def to_objects(annotations: Sequence[Annotation], size: tuple[int, int], *, masks: bool) -> Objects:
    """The objects of an image of H, W; with `masks` all need a segment.

    Raises:
        TooLarge: if an outline is longer than a limit.
    """
    segments = [as_mask(one.segment, size) for one in annotations] if masks else []
    boxes = np.array([one.box for one in annotations], dtype=np.float64).reshape(-1, 4)
    filled = rle.area(segments) if masks else (boxes[:, 2:] - boxes[:, :2]).prod(1)
    given = np.array([math.nan if one.area is None else one.area for one in annotations], dtype=np.float64)
    return Objects(
        boxes,
        np.array([one.label for one in annotations], dtype=np.int64),
        np.array([one.crowd for one in annotations], dtype=bool),
        np.where(np.isnan(given), filled, given),
        tuple(segments) if masks else None,
    )


def as_mask(segment: tuple[Float64[np.ndarray, "_ 2"], ...] | Rle | None, size: tuple[int, int]) -> Rle:
    """The mask of a segment in an image of H, W."""
    if segment is None:
        raise ValueError("an object has no segment")
    return rle.from_polygons(segment, size) if isinstance(segment, tuple) else segment


def outline_box(polygons: Sequence[Float64[np.ndarray, "_ 2"]]) -> tuple[float, float, float, float]:
    """Corners of the smallest box around polygons."""
    corners = np.concatenate(polygons)
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return x1, y1, x2, y2


@dataclass
class LeftOut:
    """Objects and images that are left out, counted by the reason."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # reason -> where it occurred first

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, where)

    def warn(self, what: str) -> None:
        """One warning with all counts, if there are any.

        Args:
            what: the file or the split, for the message.
        """
        if self.counts:
            parts = [f"{count} {reason} (the first is {self.first[reason]})" for reason, count in self.counts.items()]
            warnings.warn(f"{what}: left out {'; '.join(parts)}", stacklevel=3)
