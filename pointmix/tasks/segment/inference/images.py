"""Inference on images: whole or in sliding windows, resized, flipped, at several scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid, axis_coordinates
from pointmix.layouts.sparse import SparseGrid
from pointmix.pointset import PointSet
from pointmix.tasks.segment.inference.base import PART, Category, Infer, logits_in_parts
from pointmix.tasks.segment.inference.rows import Rows, resized, sliding, whole
from pointmix.utils.limits import check_limit
from pointmix.utils.ranges import COUNT, POSITIVE


@dataclass(frozen=True)
class ImageInfer(Infer):
    """Images, whole (`Grid`) or partial (`SparseGrid`). Logits are interpolated bilinearly to the original pixels, as
    in mmseg; the probabilities of several views are averaged. Partial images are never resized.

    Args:
        short_side: pixels of the short side that images are resized to; None keeps their size.
        size_multiple: both sides are stretched to multiples of this.
        window: rows and columns of sliding windows in the resized image, whose logits are averaged; None: no windows.
        stride: rows and columns from one window to the next; None: two thirds of the window, as in mmseg.
        flip: also take the view mirrored from left to right.
        scales: factors of the size, a view each.

    Raises:
        ValueError: a number is out of range, or the stride leaves gaps between windows.
    """

    short_side: int | None = None
    size_multiple: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        COUNT.check(size_multiple=self.size_multiple)
        for name in ("short_side", "window", "stride"):
            if (value := getattr(self, name)) is not None:
                COUNT.check(**{name: value})
        POSITIVE.check(scales=self.scales)
        if not self.scales:
            raise ValueError("scales: expected at least one factor")
        if self.stride is not None and self.window is None:
            raise ValueError(f"stride {self.stride} is of sliding windows, but there are none")
        if self.window and self.stride and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.window}")

    @property
    def resizes(self) -> bool:
        """Whether the network sees images of another size, or parts of them, so that partial ones are refused."""
        plain = self.short_side is None and self.size_multiple == 1 and self.window is None
        return not plain or self.scales != (1.0,)

    def set_parts(
        self, model: nn.Module, points: PointSet, category: Category
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        if isinstance(points.layout, Cloud):
            raise ValueError("expected an image, got a cloud")
        if isinstance(points.layout, SparseGrid):
            if self.resizes:
                raise ValueError("partial images are taken whole and in their own size: no resizing, windows or scales")
            yield from self._sparse_parts(model, points, category)
            return
        width = points.layout.size[1]
        views = [
            self._view(model, points, category, scale, mirrored)
            for scale in self.scales
            for mirrored in (False, True)[: 1 + self.flip]
        ]
        start = 0
        for rows in zip(*views, strict=True):
            mean = torch.stack(rows).mean(0) if len(rows) > 1 else rows[0]  # (n, W, K)
            yield slice(start, start + len(mean) * width), mean.flatten(0, 1)
            start += len(mean) * width

    def _view(self, model: nn.Module, points: PointSet, category: Category, scale: float, mirrored: bool) -> Rows:
        """Probabilities by rows of the original image."""
        assert isinstance(points.layout, Grid)
        original, mode = points.layout.size, getattr(model, "coord_mode", "inclusive")
        size = self.input_size(original, scale)
        image = points.feat.view(1, *original, -1).permute(0, 3, 1, 2)
        image = image.flip(3) if mirrored else image
        if size != original:
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
        if self.window is not None:
            stride = self.stride or (max(1, self.window[0] * 2 // 3), max(1, self.window[1] * 2 // 3))
            rows = sliding(model, image, window=self.window, stride=stride, coord_mode=mode, category=category)
        elif size != original:
            rows = whole(model, PointSet.from_batch(image, coord_mode=mode), size[1], category)
        else:
            seen = points.with_feat(image.permute(0, 2, 3, 1).flatten(0, 2)) if mirrored else points
            rows = whole(model, seen, size[1], category)
        if size != original or self.flip or len(self.scales) > 1:  # several views are added up in the same blocks
            rows = resized(rows, size, original, block=max(1, PART // original[1]))
        for part in rows:
            yield part.softmax(-1).flip(1) if mirrored else part.softmax(-1)

    def input_size(self, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
        """Rows and columns that the network sees of an image of this size."""
        factor = scale * (1 if self.short_side is None else self.short_side / min(size))
        height, width = (max(1, int(side * factor + 0.5)) for side in size)
        seen = tuple(-(-side // self.size_multiple) * self.size_multiple for side in (height, width))
        check_limit("IMAGE_PIXELS", seen[0] * seen[1], f"an image of {size[1]}x{size[0]}, as the network sees it,")
        return seen[0], seen[1]

    def _sparse_parts(
        self, model: nn.Module, points: PointSet, category: Category
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        views = [logits_in_parts(model, points, category)]
        if self.flip:
            views.append(logits_in_parts(model, _mirrored(points), category))
        for parts in zip(*views, strict=True):
            yield parts[0][0], sum(logits.softmax(1) for _, logits in parts) / len(parts)


def _mirrored(points: PointSet) -> PointSet:
    """One partial image mirrored from left to right, its points in the same order."""
    layout = points.layout
    assert isinstance(layout, SparseGrid)
    width, column = int(layout.size[0, 1]), layout.cell[:, 1]
    ends = {mode: axis_coordinates(column, width, mode).to(points.pos.dtype) for mode in ("inclusive", "exclusive")}
    mode = min(ends, key=lambda m: float((ends[m] - points.pos[:, 1]).abs().max()))  # that of the points
    moved = axis_coordinates(width - 1 - column, width, mode).to(points.pos.dtype)
    cell = torch.stack([layout.cell[:, 0], width - 1 - column], 1)
    return replace(points, pos=torch.stack([points.pos[:, 0], moved], 1), layout=SparseGrid(cell, layout.size))
