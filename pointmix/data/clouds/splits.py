"""Point-cloud classification data: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from torch import Tensor

from pointmix.data.balanced import train_batches
from pointmix.data.clouds.config import FEATURE_CHANNELS, PointDataConfig
from pointmix.data.clouds.loaders import cloud_loader
from pointmix.data.clouds.resolve import check_keep_ratio, resolve
from pointmix.data.clouds.source import SOURCES
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import PartBatches
from pointmix.data.source import Source
from pointmix.data.splits import LoaderSplits, check_same_classes, stratified_split
from pointmix.pointset import PointSet


@dataclass(frozen=True)
class PointSplits(LoaderSplits[tuple[PointSet, Tensor]]):
    """Loaders over (PointSet of B clouds, targets int64 (B,)), and what a model and a report need to know.

    Args:
        train: shuffled and augmented, without a last incomplete batch; state_dict() and load_state_dict() resume it
            within an epoch.
        val: the clouds held out from train, or None if there are none.
        test: the test split. Of val and test every process gets its own part, and no cloud twice.
        classes: names, in the order of the labels.
        config: the checked configuration.
    """

    train: BatchLoader[tuple[PointSet, Tensor]]
    val: BatchLoader[tuple[PointSet, Tensor]] | None
    test: BatchLoader[tuple[PointSet, Tensor]]
    classes: list[str]
    config: PointDataConfig

    @property
    def in_chans(self) -> int:
        """Feature channels: 0 for bare positions."""
        return FEATURE_CHANNELS[self.config.features]

    @property
    def model_kwargs(self) -> dict[str, int]:
        """Arguments of `create_model` that follow from the data."""
        return {"num_classes": len(self.classes), "in_chans": self.in_chans, "coord_dims": 3}


def build_points(
    cfg: PointDataConfig, *, batch_size: int, eval_batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> PointSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training clouds per step and process; the global batch is world_size times as large.
        eval_batch_size: clouds per step and process in evaluation.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.
    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: for a setting out of range, a damaged file or one without the keys, labels out of range, splits with
            different classes, or fewer clouds than a batch.
    """
    if batch_size < 1 or eval_batch_size < 1 or seed < 0:
        raise ValueError(f"batch sizes {batch_size}, {eval_batch_size} and seed {seed}: expected at least 1, 1 and 0")
    cfg = resolve(cfg)
    train = SOURCES.open_labeled(cfg.source, cfg, "train")
    classes = tuple(train.classes)  # some of them may be missing in test
    test = SOURCES.open_labeled(cfg.source, dataclasses.replace(cfg, classes=classes), "test")
    train_names, test_names = _stated_classes(train), _stated_classes(test)
    if cfg.classes is None and train_names and test_names:
        check_same_classes(train_names, test_names, "test")
    chosen, held_out = stratified_split(train.targets, fraction=cfg.val_fraction, seed=cfg.split_seed)
    if cfg.limit:
        chosen = np.sort(np.random.default_rng(cfg.split_seed).permutation(chosen)[: cfg.limit])
    if len(chosen) < batch_size * world_size:
        raise ValueError(
            f"{len(chosen)} training clouds do not fill one batch of {batch_size} x {world_size} processes; "
            "use a smaller batch size"
        )
    place = {"rank": rank, "world_size": world_size}
    order = train_batches(train.targets[chosen], balanced=cfg.balanced, batch_size=batch_size, seed=seed, **place)

    def part(source: Source[PointSet], indices: Int[np.ndarray, " n"]) -> BatchLoader[tuple[PointSet, Tensor]]:
        return cloud_loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=eval_batch_size, **place))

    return PointSplits(
        train=cloud_loader(cfg, train, chosen, order, seed=seed),
        val=part(train, held_out) if len(held_out) else None,
        test=part(test, np.arange(len(test.targets))),
        classes=train.classes,
        config=cfg,
    )


def build_points_test(
    cfg: PointDataConfig, *, batch_size: int, keep_ratio: float = 1.0
) -> tuple[BatchLoader[tuple[PointSet, Tensor]], list[str]]:
    """The loader of the test split and the names of its classes, without opening train.

    If the files do not name their classes and test lacks some, give `classes`.

    Args:
        keep_ratio: fraction of the points of each cloud that is kept, in (0, 1]. The points are random but the same in
            every evaluation, and those of a smaller fraction are a subset of those of a larger one.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: as for `build_points`, and for a fraction that leaves no point.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: expected at least 1")
    cfg = resolve(cfg)
    check_keep_ratio(keep_ratio, cfg)
    test = SOURCES.open_labeled(cfg.source, cfg, "test")
    batches = PartBatches(size=len(test.targets), batch_size=batch_size)
    loader = cloud_loader(cfg, test, np.arange(len(test.targets)), batches, keep_ratio=keep_ratio)
    return loader, test.classes


def _stated_classes(source: Source[PointSet]) -> list[str] | None:
    """The class names that the data of a source state; files of clouds may state none."""
    return getattr(source, "stated_classes", source.classes)
