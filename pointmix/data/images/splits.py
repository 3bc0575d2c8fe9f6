"""Image classification data: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pointmix.data.balanced import train_batches
from pointmix.data.images.config import DataConfig, filled, is_partial
from pointmix.data.images.loaders import image_loader
from pointmix.data.images.mask_files import with_masks
from pointmix.data.images.normalize import ByteImages
from pointmix.data.images.partial import partial_points
from pointmix.data.images.resolve import resolve
from pointmix.data.images.source import SOURCES
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import PartBatches
from pointmix.data.source import Source
from pointmix.data.splits import LoaderSplits, check_same_classes, stratified_split
from pointmix.io.image_files import MODES
from pointmix.pointset import PointSet


@dataclass(frozen=True)
class ImageSplits(LoaderSplits[tuple[ByteImages, Tensor]]):
    """Loaders over (images, targets int64 (B,)), and what a model and a report need to know.

    Images are bytes until `images.to(device)` makes them float32 (B, C, H, W), see
    `pointmix.data.images.normalize`. With keep_ratio or mask_root, the mask is then one more channel, see
    `pointmix.data.images.partial`.

    Args:
        train: shuffled and augmented; state_dict() and load_state_dict() resume it within an epoch.
        val: the images held out from train, or None if there are none.
        test: the test split. Of val and test every process gets its own part, and no image twice.
        classes: names, in the order of the labels.
        config: the configuration with every setting filled in.
    """

    train: BatchLoader[tuple[ByteImages, Tensor]]
    val: BatchLoader[tuple[ByteImages, Tensor]] | None
    test: BatchLoader[tuple[ByteImages, Tensor]]
    classes: list[str]
    config: DataConfig

    @property
    def in_chans(self) -> int:
        return filled(self.config.in_chans)

    @property
    def mean(self) -> tuple[float, ...]:
        return filled(self.config.mean)

    @property
    def std(self) -> tuple[float, ...]:
        return filled(self.config.std)

    @property
    def img_size(self) -> int:
        return filled(self.config.img_size)

    def partial(self, images: Float[Tensor, "B C H W"], *, coord_mode: str = "inclusive") -> Tensor | PointSet:
        """A batch on its device as input of a model: the images, or the visible points of partial ones."""
        return partial_points(images, coord_mode=coord_mode) if is_partial(self.config) else images


STREAMED = ("tfds", "hfids")  # timm's readers without random access


def open_split(cfg: DataConfig, split: str | None) -> Source[Image.Image]:
    """A split of the source, with the masks of `mask_root`, if any; None is the test split under its usual name.

    Raises:
        FileNotFoundError, ValueError: for data that are missing or damaged, or an unknown source.
    """
    if cfg.source.partition("/")[0] in STREAMED:
        raise ValueError(
            f"data.source {cfg.source!r} can only be streamed, so runs could not be resumed exactly; "
            "use hfds/NAME, wds/NAME, torch/NAME or an image folder"
        )
    source = SOURCES.open_labeled(cfg.source, cfg, split)
    if cfg.mask_root is None:
        return source
    mode = MODES[filled(cfg.in_chans)]
    return with_masks(source, root=cfg.root, mask_root=cfg.mask_root, mode=mode, strict=cfg.strict)


def build_data(
    cfg: DataConfig, *, batch_size: int, eval_batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> ImageSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training images per step and process; the global batch is world_size times as large.
        eval_batch_size: images per step and process in evaluation.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: for a setting out of range, a class without images, or splits with different classes.
    """
    if batch_size < 1 or eval_batch_size < 1 or seed < 0:
        raise ValueError(f"batch sizes {batch_size}, {eval_batch_size} and seed {seed}: expected at least 1, 1 and 0")
    has_fraction, cfg = cfg.val_fraction is not None, resolve(cfg)
    train, test = open_split(cfg, cfg.train_split), open_split(cfg, cfg.test_split)
    if not has_fraction and cfg.val_split is None:
        cfg = replace(cfg, val_split=getattr(train, "val_split", None))
    check_same_classes(train.classes, test.classes, cfg.test_split or "test")
    if cfg.val_split:
        val, chosen = open_split(cfg, cfg.val_split), np.arange(len(train.targets))
        check_same_classes(train.classes, val.classes, cfg.val_split)
        held_out = np.arange(len(val.targets))
    else:
        val, (chosen, held_out) = (
            train,
            stratified_split(train.targets, fraction=filled(cfg.val_fraction), seed=cfg.split_seed),
        )
    if cfg.limit:
        chosen = np.sort(np.random.default_rng(cfg.split_seed).permutation(chosen)[: cfg.limit])

    place = {"rank": rank, "world_size": world_size}
    order = train_batches(train.targets[chosen], balanced=cfg.balanced, batch_size=batch_size, seed=seed, **place)

    def part(source: Source[Image.Image], indices: Int[np.ndarray, " n"]) -> BatchLoader[tuple[ByteImages, Tensor]]:
        return image_loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=eval_batch_size, **place))

    return ImageSplits(
        train=image_loader(cfg, train, chosen, order, seed=seed),
        val=part(val, held_out) if len(held_out) else None,
        test=part(test, np.arange(len(test.targets))),
        classes=train.classes,
        config=cfg,
    )


def build_test(cfg: DataConfig, *, batch_size: int) -> tuple[BatchLoader[tuple[ByteImages, Tensor]], list[str]]:
    """The loader of the test split and the names of its classes, without opening train.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: for a setting out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: expected at least 1")
    cfg = resolve(cfg)
    test = open_split(cfg, cfg.test_split)
    batches = PartBatches(size=len(test.targets), batch_size=batch_size)
    return image_loader(cfg, test, np.arange(len(test.targets)), batches), test.classes
