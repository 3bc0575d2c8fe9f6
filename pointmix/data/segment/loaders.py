"""Loaders of labeled images and clouds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int

from pointmix.data.cache import Cache
from pointmix.data.clouds.points import finite_points
from pointmix.data.dataset import SampleDataset, join_samples
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.segment.clouds import transforms as of_clouds
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images import transforms as of_images
from pointmix.data.segment.images.rgbd import as_labeled_cloud
from pointmix.data.segment.join import join_batches
from pointmix.data.segment.resolve import is_cloud
from pointmix.data.segment.sample import IGNORE, LabeledCloud, LabeledImage, SegmentBatch
from pointmix.data.segment.source import Color, SegmentSource
from pointmix.io.errors import BadMask

Raw = TypeVar("Raw", bound=LabeledImage | LabeledCloud)


class SegmentDataset(SampleDataset[Raw, SegmentBatch]):
    """Samples of a part of a source, each a batch of one set; see `SampleDataset`.

    Args:
        num_classes: K; labels are 0 to K - 1, or `IGNORE`.
        transform: what the source reads -> a batch of one set.
    """

    def __init__(
        self,
        *,
        source: SegmentSource[Raw],
        indices: Int[np.ndarray, " n"],
        num_classes: int,
        transform: Callable[[Raw], SegmentBatch],
        seed: int | None,
    ) -> None:
        super().__init__(source=source, indices=indices, seed=seed)
        self.num_classes, self.transform = num_classes, transform

    def make(self, raw: Raw, index: int) -> SegmentBatch:
        name = self.source.name(index)
        check_labels(raw.label, self.num_classes, name=name)
        try:
            return self.transform(raw)
        except BadMask as error:
            raise BadMask(f"{name}: {error}") from error


def check_labels(label: Int[np.ndarray, "..."], num_classes: int, *, name: str) -> None:
    """Refuse labels that are neither classes nor `IGNORE`, or no integers.

    Raises:
        BadMask: naming the file, the value and its place.
    """
    if label.dtype.kind not in "iu":
        raise BadMask(f"{name}: labels are {label.dtype}, expected integers")
    if not label.size or (label.min() >= IGNORE and label.max() < num_classes):
        return
    place = tuple(int(i[0]) for i in np.nonzero((label < IGNORE) | (label >= num_classes)))
    where = f"pixel row {place[0]}, column {place[1]}" if len(place) == 2 else f"point {place[0]}"
    raise BadMask(f"{name}: label {label[place]} at {where}, expected classes 0 to {num_classes - 1} or {IGNORE}")


class Repeated(Generic[Raw]):
    """A source with every sample several times, so that each time has its own random numbers: sample i of the r-th
    time has the number r * len(source) + i."""

    def __init__(self, source: SegmentSource[Raw]) -> None:
        self.source = source

    @property
    def classes(self) -> Sequence[str]:
        return self.source.classes

    @property
    def palette(self) -> Sequence[Color] | None:
        return self.source.palette

    @property
    def categories(self) -> Mapping[str, Sequence[int]] | None:
        return self.source.categories

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Raw:
        return self.source.read(index % len(self.source))

    def name(self, index: int) -> str:
        return self.source.name(index % len(self.source))


class Cached(Repeated[Raw]):
    """A source whose chosen samples are read once, now; forked workers share them."""

    def __init__(self, source: SegmentSource[Raw], indices: Iterable[int]) -> None:
        super().__init__(source)
        self.cache = Cache(source, indices)

    def read(self, index: int) -> Raw:
        return self.cache.read(index % len(self.source))


class Finite(Repeated[LabeledCloud]):
    """Clouds without their points that are not finite, see `data.nan`.

    Args:
        names: of the features that are used.
    """

    def __init__(self, source: SegmentSource[LabeledCloud], names: tuple[str, ...]) -> None:
        super().__init__(source)
        self.names = names

    def read(self, index: int) -> LabeledCloud:
        cloud = super().read(index)
        if cloud.label.shape != cloud.pos.shape[:1]:  # refused by the transform
            return cloud
        good = finite_points(cloud, self.names, name=self.name(index))
        return cloud if good is None else cloud.subset(good, self.names)


class AsClouds(Repeated[Any]):
    """The depth images of a source as clouds."""

    def read(self, index: int) -> LabeledCloud:
        return as_labeled_cloud(self.source.read(index))


def segment_loader(
    cfg: SegmentDataConfig,
    source: SegmentSource[Any],
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    seed: int | None = None,
) -> BatchLoader[SegmentBatch]:
    """A loader over a part of a source: with a seed for training, crops, `cfg.repeat` of each sample; else whole
    samples.

    Args:
        cfg: resolved.
        batches: over len(indices) samples, times `cfg.repeat` in training.
    """
    if cfg.cache:
        source = Cached(source, indices.tolist())
    if seed is not None and (times := cfg.repeat or 1) > 1:
        source = Repeated(source)
        indices = (np.arange(times)[:, None] * len(source) + indices).reshape(-1)
    dataset = SegmentDataset(
        source=source,
        indices=indices,
        num_classes=len(source.classes),
        transform=transform_of(cfg, training=seed is not None),
        seed=seed,
    )
    return BatchLoader(
        dataset=dataset,
        batches=batches,
        workers=cfg.workers,
        strict=cfg.strict,
        collate=partial(join_samples, join=join_batches),
    )


def transform_of(cfg: SegmentDataConfig, *, training: bool) -> Callable[[Any], SegmentBatch]:
    """The transform of training or of evaluation: what the source reads -> a batch of one set."""
    if is_cloud(cfg):
        return of_clouds.train_transform(cfg) if training else of_clouds.eval_transform(cfg)
    return of_images.train_transform(cfg) if training else of_images.eval_transform(cfg)
