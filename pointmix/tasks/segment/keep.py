"""Test data of which only some of the points are left, the same in every evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized

import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.data.images.partial import random_mask
from pointmix.data.segment.sample import SegmentBatch
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid
from pointmix.pointset import PointSet
from pointmix.tasks.protocols import Loader
from pointmix.utils.ranges import FRACTION_ABOVE_0


class Kept:
    """A loader of whole samples, one a batch, of which a fraction of the points is kept, with their labels. The points
    of a smaller fraction are among those of a larger one.

    Args:
        loader: of the whole samples.
        share: fraction of the points; of images, of their pixels, hidden ones included.
        kind, patch: of the masks of images, see `pointmix.data.images.partial.random_mask`; clouds lose random points.
    """

    def __init__(self, loader: Loader[SegmentBatch], share: float, *, kind: str, patch: int) -> None:
        FRACTION_ABOVE_0.check(keep=share)
        self.loader, self.share, self.kind, self.patch = loader, share, kind, patch

    @property
    def samples(self) -> Sized:
        return self.loader.samples

    @property
    def failed(self) -> Mapping[str, str]:
        return self.loader.failed

    def __iter__(self) -> Iterator[SegmentBatch]:
        for number, batch in enumerate(self.loader):
            if self.share == 1:
                yield batch
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                index = self._chosen(batch.points)
            yield SegmentBatch(batch.points.subset(index), batch.labels[index], batch.category)

    def _chosen(self, points: PointSet) -> Int[Tensor, "n"]:
        layout, number = points.layout, len(points.feat)
        if isinstance(layout, Cloud):
            return torch.randperm(number)[: max(1, round(self.share * number))].sort().values
        size = layout.size if isinstance(layout, Grid) else (int(layout.size[0, 0]), int(layout.size[0, 1]))
        mask = random_mask(size, keep_ratio=(self.share, self.share), kind=self.kind, patch=self.patch)
        visible = mask.flatten() if isinstance(layout, Grid) else mask[layout.cell[:, 0], layout.cell[:, 1]]
        visible[0] |= not visible.any()  # a mask may leave no pixel of those that are there
        return visible.nonzero()[:, 0]
