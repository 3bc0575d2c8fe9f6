"""Loaders of point clouds."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.transforms import eval_transform, train_transform
from pointmix.data.dataset import SourceDataset, collate
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.source import Source
from pointmix.data.transforms import Transform
from pointmix.ops.ragged import counts_to_ptr
from pointmix.pointset import PointSet


class CloudDataset(SourceDataset[PointSet, PointSet]):
    """Clouds of a part of a source; see `SourceDataset`.

    Args:
        first: keep at most this many points of each cloud, the first ones. None: all.
    """

    what = "clouds"

    def __init__(
        self,
        *,
        source: Source[PointSet],
        indices: Int[np.ndarray, " n"],
        transform: Transform,
        seed: int | None,
        first: int | None = None,
    ) -> None:
        super().__init__(source=source, indices=indices, transform=transform, seed=seed)
        self.first = first

    def read(self, index: int) -> PointSet:
        points = self.source.read(index)
        if self.first is None or len(points.pos) <= self.first:
            return points
        return points.subset(torch.arange(self.first))


def join_clouds(clouds: list[PointSet]) -> PointSet:
    """One batch of several clouds."""
    ptr = counts_to_ptr(torch.tensor([len(points.pos) for points in clouds]))
    pos, feat = (torch.cat([getattr(points, key) for points in clouds]) for key in ("pos", "feat"))
    return PointSet(pos, feat, ptr, clouds[0].layout)


def cloud_loader(
    config: PointDataConfig,
    source: Source[PointSet],
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    *,
    seed: int | None = None,
    keep_ratio: float = 1.0,
) -> BatchLoader[tuple[PointSet, Tensor]]:
    """A loader over a part of a source; with a seed for training, else for evaluation."""
    clouds = CloudDataset(
        source=source,
        indices=indices,
        transform=eval_transform(config, keep_ratio=keep_ratio) if seed is None else train_transform(config),
        seed=seed,
        first=config.points if config.sampling == "first" else None,
    )
    join = partial(collate, join=join_clouds)
    return BatchLoader(dataset=clouds, batches=batches, workers=config.workers, strict=config.strict, collate=join)
