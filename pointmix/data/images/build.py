"""Image classification data: one configuration in, loaders for train, validation and test out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from pointmix.data.images import digits
from pointmix.data.images.folder import check_same_classes, open_source
from pointmix.data.images.normalize import join_bytes
from pointmix.data.images.partial import MASKS, MaskedTransform, RandomMask, partial_points, with_masks
from pointmix.data.images.source import MASKED_MODES, MODES, Source, cached
from pointmix.data.loader import BatchLoader, Failure, ImageSet, collate
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.transforms.images import eval_transform, train_transform
from pointmix.pointset import PointSet
from pointmix.utils.limits import check_limit
from pointmix.utils.ranges import COUNT, FINITE, NATURAL, NONNEGATIVE, PART, POSITIVE, SEED, SHARE, SOME, check_fields

# What a setting that is None becomes.
FOR_DIGITS = {
    "img_size": 8,
    "in_chans": 1,
    "mean": digits.MEAN,
    "std": digits.STD,
    "val_fraction": 0.1,
    "crop_pct": 1.0,
    "pad_crop": 1,
    "hflip": 0.0,
    "color_jitter": 0.0,
}
FOR_IMAGES = {
    "img_size": 224,
    "in_chans": 3,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "val_fraction": 0.1,
    "crop_pct": 0.9,
    "pad_crop": 0,
    "hflip": 0.5,
    "color_jitter": 0.4,
}
CHOICES = {
    "interpolation": ("bicubic", "bilinear", "nearest"),
    "train_interpolation": ("random", "bicubic", "bilinear", "nearest"),
    "remode": ("const", "rand", "pixel"),
    "mask": MASKS,
}
POLICIES = ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a")  # what timm's policies begin with


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and what is done to them.

    Args:
        source: digits (8x8, nothing to download), folder (class folders or tar files below root), wds/ (WebDataset
            shards below root), hfds/NAME (Hugging Face) or torch/NAME (torchvision).
        root: folder of the data, or where a library keeps its downloads.
        train_split: name of the training split, a folder below root for source folder.
        test_split: name of the test split; unset: the first of val, validation and test that is there.
        val_split: name of a split to select models on, instead of a share of train.
        val_fraction: share of every class of train held back to select models on, 0 for none (unset: 0.1).
        split_seed: decides which images are held back or kept by limit; the run's own seed does not.
        limit: at most this many training images, for a quick try.
        input_key: column of the images, for hfds.
        target_key: column of the labels, for hfds.
        download: let torchvision fetch the set, for torch.
        img_size: side of the images given to the model, in pixels (unset: 8 for digits, 224 else).
        in_chans: channels, 1 gray or 3 RGB; files are converted (unset: 1 for digits, 3 else).
        mean: mean of every channel, of values in [0, 1], taken off (unset: the digits' or ImageNet's).
        std: deviation of every channel, divided by (unset: the digits' or ImageNet's).
        interpolation: how evaluation resizes (bicubic, bilinear, nearest).
        crop_pct: share of the resized short side that evaluation keeps (unset: 1 for digits, 0.9 else).
        train_interpolation: how random crops are resized; random picks bilinear or bicubic for each image.
        scale: range of the random crop's area, as a share of the image.
        ratio: range of the random crop's aspect ratio.
        pad_crop: pixels added around the image before a crop of img_size, instead of the random resized crop; for small
            images; 0 for off (unset: 1 for digits, 0 else).
        hflip: probability of mirroring left and right (unset: 0 for digits, 0.5 else).
        vflip: probability of mirroring top and bottom.
        color_jitter: strength of random brightness, contrast and saturation; auto_augment replaces it (unset: 0 for
            digits, 0.4 else).
        auto_augment: timm's augmentation policy, as rand-m9-mstd0.5-inc1.
        reprob: probability of erasing a random rectangle.
        remode: what an erased rectangle becomes, const (zero), rand (one color) or pixel (noise).
        keep: share of every image that the model sees, in training and evaluation, or a range such as [0.1, 1.0] from
            which it is drawn for each image. In evaluation an image always has the same mask.
        mask: what random masks are made of: patches or pixels (that stay), block (one, that is hidden) or any of these.
        mask_patch: side of the patches, in pixels of the image given to the model.
        mask_root: instead, a folder with a mask for each image, under its own path below root, but ending in .png: zero
            hides a pixel. An image without a mask is whole, or refused if strict.
        workers: processes that load images; 0 loads in the training process.
        cache: decode every image once and keep the bytes in memory, for sets that fit.
        strict: stop at a damaged image; otherwise it is skipped and counted.
    """

    source: str = "digits"
    root: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    val_split: str | None = None
    val_fraction: Annotated[float, PART] | None = None
    split_seed: Annotated[int, SEED] = 0
    limit: Annotated[int, COUNT] | None = None
    input_key: str = "image"
    target_key: str = "label"
    download: bool = False
    img_size: Annotated[int, COUNT] | None = None
    in_chans: Annotated[int, COUNT] | None = None
    mean: tuple[Annotated[float, FINITE], ...] | None = None
    std: tuple[Annotated[float, POSITIVE], ...] | None = None
    interpolation: str = "bicubic"
    crop_pct: Annotated[float, SOME] | None = None
    train_interpolation: str = "random"
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (0.08, 1.0)
    ratio: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (3 / 4, 4 / 3)
    pad_crop: Annotated[int, NATURAL] | None = None
    hflip: Annotated[float, SHARE] | None = None
    vflip: Annotated[float, SHARE] = 0.0
    color_jitter: Annotated[float, NONNEGATIVE] | None = None
    auto_augment: str | None = None
    reprob: Annotated[float, SHARE] = 0.0
    remode: str = "pixel"
    keep: Annotated[float, SOME] | tuple[Annotated[float, SOME], Annotated[float, SOME]] = 1.0
    mask: str = "patches"
    mask_patch: Annotated[int, COUNT] = 4
    mask_root: str | None = None
    workers: Annotated[int, NATURAL] = 0
    cache: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "data.")


def keep_range(cfg: DataConfig) -> tuple[float, float]:
    """The smallest and the largest share of an image that the model sees."""
    low, high = (cfg.keep, cfg.keep) if isinstance(cfg.keep, int | float) else cfg.keep
    return low, high


def is_partial(cfg: DataConfig) -> bool:
    """Whether the batches of this data have masks."""
    return cfg.mask_root is not None or keep_range(cfg) != (1, 1)


def resolve(cfg: DataConfig) -> DataConfig:
    """Fill in every setting that the source decides, and check those that depend on each other.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    usual = dict(FOR_DIGITS if cfg.source == "digits" else FOR_IMAGES)
    if cfg.source == "digits" and cfg.root:
        raise ValueError(
            f"data.root {cfg.root}: data.source is digits, which come inside scikit-learn; name a --config such as "
            "configs/image/coc_cifar10.yaml, or --data.source folder"
        )
    cfg = dataclasses.replace(cfg, **{key: value for key, value in usual.items() if getattr(cfg, key) is None})
    if cfg.in_chans not in MODES:
        raise ValueError(f"data.in_chans {cfg.in_chans}: expected 1 (gray) or 3 (RGB)")
    channels = {}
    for key in ("mean", "std"):
        values = tuple(float(value) for value in getattr(cfg, key))
        if cfg.in_chans == 1 and values == usual[key]:
            values = (sum(values) / len(values),)  # the gray version of a color default
        if len(values) not in (1, cfg.in_chans):
            raise ValueError(f"data.{key} has {len(values)} values for {cfg.in_chans} channels")
        channels[key] = values * (cfg.in_chans // len(values))
    for key, expected in CHOICES.items():
        if getattr(cfg, key) not in expected:
            raise ValueError(f"data.{key} {getattr(cfg, key)!r}: expected one of {', '.join(expected)}")
    for key in ("scale", "ratio"):
        low, high = getattr(cfg, key)
        if low > high:
            raise ValueError(f"data.{key} {low}, {high}: expected two positive numbers, the smaller first")
    policy = cfg.auto_augment
    if policy is not None and policy.split("-")[0] not in POLICIES:
        raise ValueError(f"data.auto_augment {policy!r}: expected null or one beginning with {', '.join(POLICIES)}")
    check_limit("IMAGE_PIXELS", cfg.img_size**2, f"data.img_size {cfg.img_size}: such an image")
    low, high = keep_range(cfg)
    if low > high:
        raise ValueError(f"data.keep {cfg.keep}: expected a share above 0, up to 1, or two, the smaller first")
    if cfg.mask_root is not None and (low, high) != (1, 1):
        raise ValueError(f"data.keep {cfg.keep} with data.mask_root {cfg.mask_root}: expected one of the two")
    if cfg.mask_root is not None and policy is not None and not policy.startswith("3a"):
        raise ValueError(
            f"data.auto_augment {policy!r} moves pixels and leaves data.mask_root's masks behind; expected null or 3a"
        )
    return dataclasses.replace(cfg, **channels)


def hold_back(
    targets: Int[np.ndarray, " N"], *, fraction: float, seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Two sorted parts of the images, the second with `fraction` of every class, at least one, but never all of it."""
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction else 0
        held.append(members[:count])
    second = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(targets)), second), second


@dataclass(frozen=True)
class ImageSplits:
    """Loaders over (images, targets int64 (B,)), and what a model and a report need to know.

    Images are bytes until `images.to(device)` makes them float32 (B, C, H, W), see
    `pointmix.data.images.normalize`. With keep or mask_root, they then have their mask as one channel more, see
    `pointmix.data.images.partial`.

    Args:
        train: shuffled and augmented; has state_dict() and load_state_dict(), and forgets nothing in mid-epoch.
        val: the images held back from train, or None where nothing was.
        test: the test split. Every process sees its own part of val and test, and no image twice.
        classes: names, in the order of the labels.
        config: the configuration with every setting filled in.
    """

    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader
    classes: list[str]
    config: DataConfig

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train)

    @property
    def in_chans(self) -> int:
        return self.config.in_chans

    @property
    def mean(self) -> tuple[float, ...]:
        return self.config.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.config.std

    @property
    def img_size(self) -> int:
        return self.config.img_size

    def partial(self, images: Float[Tensor, "B C H W"], *, coord_mode: str = "inclusive") -> Tensor | PointSet:
        """A batch on its device, mixed or not, as the model takes it: itself, or its visible points."""
        return partial_points(images, coord_mode=coord_mode) if is_partial(self.config) else images

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the next pass over train; call it before every epoch."""
        self.train.set_epoch(epoch)

    def skipped(self) -> list[Failure]:
        """(file, reason) of every damaged image that this process has met so far."""
        loaders = [loader for loader in (self.train, self.val, self.test) if loader is not None]
        return sorted({failure for loader in loaders for failure in loader.failed.items()})


def _open(cfg: DataConfig, split: str | None) -> Source:
    if cfg.source == "digits":
        source = digits.open_digits(split or "test")
    else:
        source = _open_named(cfg, split)
    if cfg.mask_root is None:
        return source
    mode = MODES[cfg.in_chans]
    return with_masks(source, root=cfg.root, mask_root=cfg.mask_root, mode=mode, strict=cfg.strict)


def _open_named(cfg: DataConfig, split: str | None) -> Source:
    return open_source(
        name=cfg.source,
        root=cfg.root,
        split=split,
        input_key=cfg.input_key,
        target_key=cfg.target_key,
        download=cfg.download,
    )


def build_data(
    cfg: DataConfig, *, batch_size: int, eval_batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> ImageSplits:
    """Open the data and make the loaders.

    Args:
        cfg: what to load.
        batch_size: training images a step and process; processes x batch_size make the global batch.
        eval_batch_size: images a step and process in evaluation.
        seed: of the order and the augmentation, not negative.
        rank, world_size: this process and how many there are.
    Raises:
        FileNotFoundError: for data that is not there.
        ValueError: for a setting out of range, a class without images, or splits with different classes.
    """
    if batch_size < 1 or eval_batch_size < 1 or seed < 0:
        raise ValueError(f"batch sizes {batch_size}, {eval_batch_size} and seed {seed}: expected at least 1, 1 and 0")
    cfg = resolve(cfg)
    train, test = _open(cfg, cfg.train_split), _open(cfg, cfg.test_split)
    check_same_classes(train.classes, test.classes, cfg.test_split or "test")
    if cfg.val_split:
        val, kept = _open(cfg, cfg.val_split), np.arange(len(train.targets))
        check_same_classes(train.classes, val.classes, cfg.val_split)
        held = np.arange(len(val.targets))
    else:
        val, (kept, held) = train, hold_back(train.targets, fraction=cfg.val_fraction, seed=cfg.split_seed)
    if cfg.limit:
        kept = np.sort(np.random.default_rng(cfg.split_seed).permutation(kept)[: cfg.limit])

    place = {"rank": rank, "world_size": world_size}
    order = EpochBatches(size=len(kept), batch_size=batch_size, seed=seed, **place)

    def part(source: Source, indices: Int[np.ndarray, " n"]) -> BatchLoader:
        return _loader(cfg, source, indices, PartBatches(size=len(indices), batch_size=eval_batch_size, **place))

    return ImageSplits(
        train=_loader(cfg, train, kept, order, seed=seed),
        val=part(val, held) if len(held) else None,
        test=part(test, np.arange(len(test.targets))),
        classes=train.classes,
        config=cfg,
    )


def build_test(cfg: DataConfig, *, batch_size: int) -> tuple[BatchLoader, list[str]]:
    """The test split alone, without a look at train: its loader and the names of its classes.

    Raises:
        FileNotFoundError: for data that is not there.
        ValueError: for a setting out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size}: expected at least 1")
    cfg = resolve(cfg)
    test = _open(cfg, cfg.test_split)
    size = len(test.targets)
    return _loader(cfg, test, np.arange(size), PartBatches(size=size, batch_size=batch_size)), test.classes


def _loader(
    cfg: DataConfig,
    source: Source,
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    seed: int | None = None,
) -> BatchLoader:
    """A loader over a part of a source; for training with a seed, else for evaluation."""
    mode = (MODES if cfg.mask_root is None else MASKED_MODES)[cfg.in_chans]
    transform = eval_transform(cfg) if seed is None else train_transform(cfg)
    if cfg.mask_root is not None:
        transform = MaskedTransform(transform.transforms, side=None if seed is None else cfg.img_size)
    elif is_partial(cfg):
        transform.transforms.append(RandomMask(keep=keep_range(cfg), kind=cfg.mask, patch=cfg.mask_patch))
    images = ImageSet(
        source=cached(source, indices, mode) if cfg.cache else source,
        indices=indices,
        mode=mode,
        transform=transform,
        seed=seed,
    )
    return BatchLoader(
        dataset=images,
        batches=batches,
        workers=cfg.workers,
        strict=cfg.strict,
        collate=partial(collate, join=partial(join_bytes, mean=cfg.mean, std=cfg.std)),
    )
