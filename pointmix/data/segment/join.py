"""Batches of samples with a label for every point."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pointmix.data.segment.sample import SegmentBatch
from pointmix.pointset import PointSet


def join_batches(items: Sequence[SegmentBatch]) -> SegmentBatch:
    """One batch of all sets, in their order. Grids of one size stay a `Grid`, other lattices become a `SparseGrid`.

    Raises:
        ValueError: if there is none, or lattices and clouds, features of different width, or samples with and without
            a category are mixed.
    """
    if len(items) == 1:
        return items[0]
    points = PointSet.cat([item.points for item in items])
    labels = torch.cat([item.labels for item in items])
    categories = [item.category for item in items if item.category is not None]
    if categories and len(categories) < len(items):
        raise ValueError("samples with and without a category are mixed, expected one for each sample or none")
    return SegmentBatch(points, labels, torch.cat(categories) if categories else None)
