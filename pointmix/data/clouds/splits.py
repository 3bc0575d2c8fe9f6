"""Point-cloud classification data: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from torch import Tensor

from pointmix.data.balanced import train_batches
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.features import surveyed
from pointmix.data.clouds.loaders import cloud_loader
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.resolve import check_keep_ratio, resolve
from pointmix.data.clouds.source import SOURCES
from pointmix.data.clouds.transforms import eval_transform, test_transform, train_transform
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import PartBatches
from pointmix.data.source import Source
from pointmix.data.splits import VAL_FRACTION, LoaderSplits, check_same_classes, stratified_fold, stratified_split
from pointmix.data.transforms import Transform
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
        config: the checked configuration with every setting filled in.
        channels: first channel and end of each feature.
        extent: median diagonal of the training clouds' bounding boxes, in the unit of the positions.
    """

    train: BatchLoader[tuple[PointSet, Tensor]]
    val: BatchLoader[tuple[PointSet, Tensor]] | None
    test: BatchLoader[tuple[PointSet, Tensor]]
    classes: list[str]
    config: PointDataConfig
    channels: dict[str, tuple[int, int]]
    extent: float | None

    @property
    def in_chans(self) -> int:
        """Feature channels: 0 for bare positions."""
        return max((end for _, end in self.channels.values()), default=0)

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
    named = dataclasses.replace(cfg, classes=tuple(train.classes))  # some of them may be missing in the others
    splits = ["test"] if cfg.fold is None else []
    if cfg.val_fraction is None and SOURCES.find(cfg.source).has_val(cfg):
        splits.append("val")
    others = {split: SOURCES.open_labeled(cfg.source, named, split) for split in splits}
    for split, source in others.items():
        train_names, names = _stated_classes(train), _stated_classes(source)
        if cfg.classes is None and train_names and names:
            check_same_classes(train_names, names, split)
    rest, tested = _folded(train, cfg)
    usual = 0.0 if "val" in others else VAL_FRACTION
    fraction = usual if cfg.val_fraction is None else cfg.val_fraction
    chosen, held_out = (rest[i] for i in stratified_split(train.targets[rest], fraction=fraction, seed=cfg.split_seed))
    if cfg.limit:
        chosen = np.sort(np.random.default_rng(cfg.split_seed).permutation(chosen)[: cfg.limit])
    if len(chosen) < batch_size * world_size:
        raise ValueError(
            f"{len(chosen)} training clouds do not fill one batch of {batch_size} x {world_size} processes; "
            "use a smaller batch size"
        )
    cfg, found = surveyed(cfg, train, chosen, quiet=rank > 0)
    few = sum(cfg.points is not None and size < cfg.points for size in found.sizes)
    if few and not rank:
        what = f"{few} of {len(found.sizes)} training clouds have fewer points than data.points {cfg.points}"
        warnings.warn(f"{what}; all of theirs are used", stacklevel=2)
    place = {"rank": rank, "world_size": world_size}
    order = train_batches(train.targets[chosen], balanced=cfg.balanced, batch_size=batch_size, seed=seed, **place)

    def part(
        source: Source[NamedCloud], indices: Int[np.ndarray, " n"], transform: Transform
    ) -> BatchLoader[tuple[PointSet, Tensor]]:
        batches = PartBatches(size=len(indices), batch_size=eval_batch_size, **place)
        return cloud_loader(cfg, source, indices, batches, transform=transform)

    if "val" in others:
        held_out = np.arange(len(others["val"].targets))
    if "test" in others:
        tested = np.arange(len(others["test"].targets))
    augment = train_transform(cfg, normals=found.channels.get("normal"))
    return PointSplits(
        train=cloud_loader(cfg, train, chosen, order, transform=augment, seed=seed),
        val=part(others.get("val", train), held_out, test_transform(cfg, whole=False)) if len(held_out) else None,
        test=part(others.get("test", train), tested, test_transform(cfg)),
        classes=train.classes,
        config=cfg,
        channels=found.channels,
        extent=found.extent,
    )


def _folded(train: Source[NamedCloud], cfg: PointDataConfig) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Indices of the training clouds that a fold leaves, and of those that it tests on."""
    if cfg.fold is None:
        return np.arange(len(train.targets)), np.arange(0)
    return stratified_fold(train.targets, fold=cfg.fold, seed=cfg.split_seed)


def build_points_test(
    cfg: PointDataConfig, *, batch_size: int, keep_ratio: float = 1.0, whole: bool = False
) -> tuple[BatchLoader[tuple[PointSet, Tensor]], list[str]]:
    """The loader of the test split and the names of its classes, without opening train.

    If the files do not name their classes and test lacks some, give `classes`.

    Args:
        keep_ratio: fraction of the points of each cloud that is kept, in (0, 1]. The points are random but the same in
            every evaluation, and those of a smaller fraction are a subset of those of a larger one.
        whole: all points of randomly sampled clouds, for `Voting`.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: as for `build_points`, for a fraction that leaves no point, and for a feature without a scale, which
            depends on train.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: expected at least 1")
    cfg = resolve(cfg)
    check_keep_ratio(keep_ratio, cfg)
    if missing := [name for name in cfg.features if name not in (cfg.feature_scale or {})]:
        raise ValueError(f"data.feature_scale has no {missing[0]}, which is among data.features")
    test = SOURCES.open_labeled(cfg.source, cfg, "test" if cfg.fold is None else "train")
    tested = np.arange(len(test.targets)) if cfg.fold is None else _folded(test, cfg)[1]
    batches = PartBatches(size=len(tested), batch_size=batch_size)
    transform = test_transform(cfg) if whole else eval_transform(cfg, keep_ratio=keep_ratio)
    return cloud_loader(cfg, test, tested, batches, transform=transform), test.classes


def _stated_classes(source: Source[NamedCloud]) -> list[str] | None:
    """The class names that the data of a source state; files of clouds may state none."""
    return getattr(source, "stated_classes", source.classes)
