"""Loaders of point clouds."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pointmix.data.cache import Cache
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.points import as_points
from pointmix.data.dataset import SampleDataset, Target, collate
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.source import Source
from pointmix.data.transforms import Transform
from pointmix.ops.ragged import counts_to_ptr
from pointmix.pointset import PointSet


class CloudDataset(SampleDataset[NamedCloud, tuple[PointSet, Target]]):
    """Clouds of a part of a source, each with its label; see `SampleDataset`.

    Args:
        config: resolved, with a scale for each feature.
        transform: of each cloud.
    """

    what = "clouds"
    source: Source[NamedCloud]

    def __init__(
        self,
        *,
        source: Source[NamedCloud],
        indices: Int[np.ndarray, " n"],
        config: PointDataConfig,
        transform: Transform,
        seed: int | None,
    ) -> None:
        super().__init__(source=source, indices=indices, seed=seed)
        self.config, self.transform = config, transform
        self.reader = Cache(source, indices.tolist()) if config.cache else source

    def read(self, index: int) -> NamedCloud:
        return self.reader.read(index)

    def make(self, raw: NamedCloud, index: int) -> tuple[PointSet, Target]:
        points = as_points(raw, self.config, name=self.source.name(index))
        first = self.config.most_points if self.config.sampling == "first" else None
        if first is not None and len(points.pos) > first:
            points = points.subset(torch.arange(first))
        return self.transform(points), np.asarray(self.source.targets[index]).item()


def join_clouds(clouds: list[PointSet]) -> PointSet:
    """One batch of several clouds."""
    ptr = counts_to_ptr(torch.tensor([len(points.pos) for points in clouds]))
    pos, feat = (torch.cat([getattr(points, key) for points in clouds]) for key in ("pos", "feat"))
    return PointSet(pos, feat, ptr, clouds[0].layout)


def cloud_loader(
    config: PointDataConfig,
    source: Source[NamedCloud],
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    *,
    transform: Transform,
    seed: int | None = None,
) -> BatchLoader[tuple[PointSet, Tensor]]:
    """A loader over a part of a source; with a seed for training, else for evaluation."""
    clouds = CloudDataset(source=source, indices=indices, config=config, transform=transform, seed=seed)
    join = partial(collate, join=join_clouds)
    return BatchLoader(dataset=clouds, batches=batches, workers=config.workers, strict=config.strict, collate=join)
