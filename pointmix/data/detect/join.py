"""Batches of images with objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from pointmix.data.detect.resolve import padded
from pointmix.data.detect.sample import DetectBatch
from pointmix.pointset import PointSet

if TYPE_CHECKING:
    from pointmix.data.detect.transforms import DetectItem


def join_items(items: Sequence[DetectItem], *, multiple: int, least: tuple[int, int] = (1, 1)) -> DetectBatch:
    """One batch of all images on the smallest lattice that holds them; see `DetectBatch`. What pads an image is zero on
    a `Grid`, and absent on a `SparseGrid`.

    Args:
        items: all with a target or all with a truth, and all or none with hidden pixels.
        multiple: sides of the lattice are multiples of this.
        least: rows and columns of the lattice, at least.
    """
    sizes = torch.tensor([item.image.shape[1:] for item in items])  # (B, 2)
    rows, cols = (padded(max(side, low), multiple) for side, low in zip(sizes.amax(0).tolist(), least, strict=True))
    below_right = [(0, cols - width, 0, rows - height) for height, width in sizes.tolist()]
    images = torch.stack([pad(item.image, free) for item, free in zip(items, below_right, strict=True)])
    visible = [
        pad(item.visible, free) for item, free in zip(items, below_right, strict=True) if item.visible is not None
    ]
    points = PointSet.from_images(list(images), visible) if visible else PointSet.from_batch(images)
    targets = [item.target for item in items if item.target is not None]
    truths = [item.truth for item in items if item.truth is not None]
    return DetectBatch(points, sizes, targets or None, truths or None)
