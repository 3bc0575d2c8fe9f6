"""Data with a label for every pixel or point: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Int

from pointmix.data.clouds.features import check_scale, surveyed
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.loaders import AsClouds, Finite, check_labels, segment_loader
from pointmix.data.segment.resolve import is_cloud, resolve
from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.data.segment.source import SEGMENT_SOURCES, Color, SegmentSource
from pointmix.data.splits import VAL_FRACTION, LoaderSplits, check_same_classes, first_sample, random_split
from pointmix.io.errors import UnreadableSample


@dataclass(frozen=True)
class SegmentSplits(LoaderSplits[SegmentBatch]):
    """Loaders, and what a model and a report need to know.

    Args:
        train: crops, shuffled and augmented, without a last incomplete batch; state_dict() and load_state_dict()
            resume it within an epoch.
        val: whole samples, one a batch: the data's own validation split or what is held out from train; None if there
            are none.
        test: whole samples, one a batch. Of val and test every process gets its own part, and no sample twice.
        classes: names, in the order of the labels.
        palette: color of each class, 0 to 255; None for default colors.
        categories: name of each category of objects, in the order of their numbers, and the labels of its parts.
        in_chans: feature channels of a point.
        coord_dims: coordinates of a point, 2 in images.
        config: the configuration with every setting filled in.
        extent: of clouds: median diagonal of the training clouds' bounding boxes, in the unit of the positions.
    """

    train: BatchLoader[SegmentBatch]
    val: BatchLoader[SegmentBatch] | None
    test: BatchLoader[SegmentBatch]
    classes: list[str]
    palette: list[Color] | None
    categories: dict[str, list[int]] | None
    in_chans: int
    coord_dims: int
    config: SegmentDataConfig
    extent: float | None

    def label_counts(self) -> list[int]:
        """Labeled points of each class in the training samples, which are all read; damaged ones are left out."""
        source = cast(SegmentSource[Any], self.train.samples.source)
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for index in np.unique(self.train.samples.indices % len(source)).tolist():
            try:
                label = source.read(index).label
            except UnreadableSample:
                continue
            check_labels(label, len(self.classes), name=source.name(index))
            counts += np.bincount(label[label != IGNORE].ravel(), minlength=len(self.classes))
        return counts.tolist()


def build_segments(
    cfg: SegmentDataConfig, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> SegmentSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training crops per step and process; the global batch is world_size times as large.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: a setting is out of range, splits have different classes, train does not fill a batch, or none of
            its samples can be read.
    """
    cfg = resolve(cfg)
    train, test = open_split(cfg, "train"), open_split(cfg, "test")
    check_same_classes(list(train.classes), list(test.classes), "test")
    val = open_split(cfg, "val", optional=True) if cfg.val_fraction is None else None
    if val is None:
        fraction = VAL_FRACTION if cfg.val_fraction is None else cfg.val_fraction
        chosen, held_out = random_split(len(train), fraction=fraction, seed=cfg.split_seed)
        val = train
    else:
        check_same_classes(list(train.classes), list(val.classes), "val")
        chosen, held_out = np.arange(len(train)), np.arange(len(val))
    if cfg.limit:
        chosen = np.sort(np.random.default_rng(cfg.split_seed).permutation(chosen)[: cfg.limit])
    cfg, extent = with_feature_scale(cfg, train, chosen, quiet=rank > 0)
    place = {"rank": rank, "world_size": world_size}
    order = EpochBatches(size=len(chosen) * (cfg.repeat or 1), batch_size=batch_size, seed=seed, **place)

    def part(source: SegmentSource[Any], indices: Int[np.ndarray, " n"]) -> BatchLoader[SegmentBatch]:
        return segment_loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=1, **place))

    loader = segment_loader(cfg, train, chosen, order, seed=seed)
    example = first_sample(loader.samples)
    return SegmentSplits(
        train=loader,
        val=part(val, held_out) if len(held_out) else None,
        test=part(test, np.arange(len(test))),
        classes=list(train.classes),
        palette=plain_palette(train.palette),
        categories=plain_categories(train.categories),
        in_chans=example.points.feat.shape[1],
        coord_dims=example.points.pos.shape[1],
        config=cfg,
        extent=extent,
    )


def build_segments_test(
    cfg: SegmentDataConfig, *, extent: float | None = None
) -> tuple[BatchLoader[SegmentBatch], SegmentSource[Any]]:
    """The loader of the test split, whole samples, one a batch, and its source, without opening train.

    Args:
        extent: of the training clouds; a warning tells clouds of another scale.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: a setting is out of range, or a cloud's feature has no scale, which depends on train.
    """
    cfg = resolve(cfg)
    test = open_split(cfg, "test")
    if is_cloud(cfg):
        check_scale(cfg, test, range(len(test)), extent)
    return segment_loader(cfg, test, np.arange(len(test)), PartBatches(size=len(test), batch_size=1)), test


def with_feature_scale(
    cfg: SegmentDataConfig, train: SegmentSource[Any], chosen: Int[np.ndarray, " n"], *, quiet: bool
) -> tuple[SegmentDataConfig, float | None]:
    """The configuration with what each feature of a cloud is divided by, and the extent of the clouds, from the chosen
    training data; see `surveyed`."""
    if not is_cloud(cfg):
        return cfg, None
    cfg, found = surveyed(cfg, train, chosen, quiet=quiet)
    return cfg, found.extent


def open_split(cfg: SegmentDataConfig, split: str, *, optional: bool = False) -> Any:
    """A `SegmentSource`; None for an optional split that the data do not have.

    Raises:
        ValueError: the split is missing, or has no samples or no classes.
    """
    entry = SEGMENT_SOURCES.find(cfg.source)
    source: Any = entry.open(cfg, split)
    if source is None and optional:
        return None
    if source is None:
        raise ValueError(f"data.source {cfg.source} has no split {split}, expected train and test")
    if not len(source):
        raise ValueError(f"the {split} split of data.source {cfg.source} has no samples, expected at least one")
    if not source.classes:
        raise ValueError(f"data.source {cfg.source} names no classes, expected at least one; see data.classes")
    if entry.kind == "cloud" and cfg.nan == "drop":
        return Finite(source, cfg.features or ())
    return AsClouds(source) if entry.kind == "rgbd" and is_cloud(cfg) else source


def plain_palette(palette: Sequence[Color] | None) -> list[Color] | None:
    """A palette of Python's whole numbers."""
    return None if palette is None else [(int(red), int(green), int(blue)) for red, green, blue in palette]


def plain_categories(categories: Mapping[str, Sequence[int]] | None) -> dict[str, list[int]] | None:
    """Categories with lists of Python's whole numbers."""
    return None if categories is None else {name: [int(p) for p in parts] for name, parts in categories.items()}
