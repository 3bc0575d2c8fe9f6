"""Images with objects: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from pointmix.data.detect.batching import train_batches
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.loaders import detect_loader
from pointmix.data.detect.resolve import resolve
from pointmix.data.detect.sample import DetectBatch
from pointmix.data.detect.source import DETECT_SOURCES, DetectSource
from pointmix.data.images.config import filled
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import PartBatches
from pointmix.data.splits import VAL_FRACTION, LoaderSplits, check_same_classes, first_sample, random_split, shortened


@dataclass(frozen=True)
class DetectSplits(LoaderSplits[DetectBatch]):
    """Loaders, and what a model and a report need to know.

    Args:
        train: shuffled and augmented, with `targets`, without a last incomplete batch; state_dict() and
            load_state_dict() resume it within an epoch.
        val: with `truths`, one image a batch: the data's own validation split or what is held out from train; None if
            there are none.
        test: with `truths`, one image a batch. Of val and test every process gets its own part, and no image twice.
        classes: names, in the order of the labels.
        category_ids: number of each class in the files.
        has_masks: whether objects have masks, and else boxes only.
        in_chans: color channels.
        config: the configuration with every setting filled in.
    """

    train: BatchLoader[DetectBatch]
    val: BatchLoader[DetectBatch] | None
    test: BatchLoader[DetectBatch]
    classes: list[str]
    category_ids: list[int]
    has_masks: bool
    in_chans: int
    config: DetectDataConfig


def build_detect(
    cfg: DetectDataConfig, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> DetectSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training images per step and process; the global batch is world_size times as large.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: a setting is out of range, splits have different classes, train does not fill a batch, or none of
            its images can be read.
    """
    cfg = resolve(cfg)
    train, test = open_split(cfg, "train"), open_split(cfg, "test")
    check_same_classes(list(train.classes), list(test.classes), "test")
    warn_of_shared(train, test, "test")
    val = own_val_split(cfg) if cfg.val_fraction is None else None
    if val is None:
        fraction = VAL_FRACTION if cfg.val_fraction is None else cfg.val_fraction
        chosen, held_out = random_split(len(train), fraction=fraction, seed=cfg.split_seed)
        val = train
    else:
        check_same_classes(list(train.classes), list(val.classes), "val")
        warn_of_shared(train, val, "val")
        chosen, held_out = np.arange(len(train)), np.arange(len(val))
    if not cfg.keep_empty:
        chosen = with_objects(train, chosen)
    if cfg.limit:
        chosen = np.sort(np.random.default_rng(cfg.split_seed).permutation(chosen)[: cfg.limit])
    masks = have_masks(cfg, train, *([val] * bool(len(held_out))), test)
    place = {"rank": rank, "world_size": world_size}
    order = train_batches(cfg, train, chosen, batch_size=batch_size, seed=seed, **place)

    def part(source: DetectSource, indices: Int[np.ndarray, " n"]) -> BatchLoader[DetectBatch]:
        return detect_loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=1, **place), masks=masks)

    loader = detect_loader(cfg, train, chosen, order, masks=masks, seed=seed)
    first_sample(loader.samples)
    return DetectSplits(
        train=loader,
        val=part(val, held_out) if len(held_out) else None,
        test=part(test, np.arange(len(test))),
        classes=list(train.classes),
        category_ids=[int(number) for number in train.category_ids],
        has_masks=masks,
        in_chans=filled(cfg.in_chans),
        config=cfg,
    )


def build_detect_test(cfg: DetectDataConfig) -> tuple[BatchLoader[DetectBatch], DetectSource]:
    """The loader of the test split, one image a batch, and its source, without opening train.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: a setting is out of range.
    """
    cfg = resolve(cfg)
    test = open_split(cfg, "test")
    batches = PartBatches(size=len(test), batch_size=1)
    return detect_loader(cfg, test, np.arange(len(test)), batches, masks=have_masks(cfg, test)), test


def open_split(cfg: DetectDataConfig, split: str) -> DetectSource:
    """A split of the source.

    Raises:
        ValueError: the split is missing, or has no images or no classes.
    """
    source = DETECT_SOURCES.find(cfg.source).open(cfg, split)
    if source is None:
        raise ValueError(f"data.source {cfg.source} has no split {split}, expected train and test")
    return _checked(cfg, split, source)


def own_val_split(cfg: DetectDataConfig) -> DetectSource | None:
    """The validation split of the source, if it has one; raises what `open_split` raises."""
    source = DETECT_SOURCES.find(cfg.source).open(cfg, "val")
    return None if source is None else _checked(cfg, "val", source)


def _checked(cfg: DetectDataConfig, split: str, source: DetectSource) -> DetectSource:
    if not len(source):
        raise ValueError(f"the {split} split of data.source {cfg.source} has no images, expected at least one")
    if not source.classes:
        raise ValueError(f"data.source {cfg.source} names no classes, expected at least one; see data.classes")
    return source


def warn_of_shared(train: DetectSource, other: DetectSource, split: str) -> None:
    """Warn if images of another split are trained on, as they are in sets that are made to be learned by heart."""
    names = {train.name(index) for index in range(len(train))}
    if shared := [name for index in range(len(other)) if (name := other.name(index)) in names]:
        warnings.warn(f"{len(shared)} images are in both train and {split}: {shortened(shared)}", stacklevel=3)


def have_masks(cfg: DetectDataConfig, *splits: DetectSource) -> bool:
    """Whether masks are read: if all splits have them, unless `data.masks` says otherwise. Warns if only some have.

    Raises:
        ValueError: a setting asks for masks, and there are none.
    """
    there = all(split.has_masks for split in splits)
    if cfg.masks is None and not there and any(split.has_masks for split in splits):
        warnings.warn(f"no masks are read: a split of data.source {cfg.source} has boxes only", stacklevel=3)
    if cfg.masks and not there:
        raise ValueError(f"data.masks is true, but the objects of data.source {cfg.source} have boxes only")
    masks = there if cfg.masks is None else cfg.masks
    if cfg.copy_paste and not masks:
        raise ValueError(f"data.copy_paste {cfg.copy_paste} needs masks, but objects have boxes only")
    return masks


def with_objects(source: DetectSource, indices: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """The images that have objects to train on; warns of the others.

    Raises:
        ValueError: there is none.
    """
    found = np.array([source.has_objects(index) for index in indices.tolist()], dtype=bool)
    if not found.any():
        raise ValueError(f"none of {len(indices)} training images has an object, expected some; see data.keep_empty")
    if not found.all():
        first = f"the first is {source.name(int(indices[~found][0]))}"
        what = f"left out {(~found).sum()} of {len(found)} training images, which have no objects ({first})"
        warnings.warn(f"{what}; data.keep_empty trains on them too", stacklevel=3)
    return indices[found]
