"""The configuration of image data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pointmix.utils.ranges import (
    COUNT,
    FINITE,
    FRACTION,
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    NATURAL,
    NONNEGATIVE,
    POSITIVE,
    SEED,
    check_fields,
)

KeepRatio = Annotated[float, FRACTION_ABOVE_0]

MASK_KINDS = ("patches", "block", "pixels", "any")
CHOICES = {
    "interpolation": ("bicubic", "bilinear", "nearest"),
    "train_interpolation": ("random", "bicubic", "bilinear", "nearest"),
    "remode": ("const", "rand", "pixel"),
    "mask": MASK_KINDS,
}
POLICIES = ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a")  # prefixes of timm's policies

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of values in [0, 1]

OF_SOURCES = ("labels", "input_key", "target_key", "download")  # settings of some sources


@dataclass(frozen=True)
class DataConfig:
    """Image data and its augmentation.

    Args:
        source: digits (8x8, nothing to download), folder (class folders, a CSV file of labels, or tar files in root),
            wds/ (WebDataset shards in root), hfds/NAME (Hugging Face), torch/NAME (torchvision), or a source of your
            own, see `pointmix.data.source`.
        root: folder of the data, or where a library keeps its downloads.
        labels: for folder: CSV file in root with columns file, label and, if there is one, split (train, val, test), a
            line an image; files relative to it (unset: labels.csv or data.csv where train has no class folders).
        train_split: name of the training split, a folder in root for source folder.
        test_split: name of the test split; unset: the first of val, validation and test that exists, or test if there
            is one for validation, too.
        val_split: name of a split for model selection, instead of a fraction of train (unset: val or validation where
            a folder or CSV file has it beside train and test, unless val_fraction or test_split is set).
        val_fraction: fraction of every class of train held out for model selection, 0 for none (unset: 0.1).
        split_seed: seed of the held-out and limited images; independent of the run's seed.
        limit: at most this many training images, for a quick try.
        input_key: column of the images, for hfds; in CSV files image also stands for file, path and filename.
        target_key: column of the labels, for hfds and CSV files; in these label also stands for class and target.
        download: let torchvision download the set, for torch.
        img_size: side of the images given to the model, in pixels (unset: 8 for digits, 224 else).
        in_chans: channels, 1 grayscale or 3 RGB; files are converted (unset: 1 for digits, 3 else).
        mean: mean of every channel, of values in [0, 1], subtracted (unset: the digits' or ImageNet's).
        std: standard deviation of every channel, divided by (unset: the digits' or ImageNet's).
        interpolation: how evaluation resizes (bicubic, bilinear, nearest).
        crop_pct: fraction of the resized short side that the center crop of evaluation keeps (unset: 1 for digits, 0.9
            else).
        train_interpolation: how random crops are resized; random picks bilinear or bicubic for each image.
        scale: range of the random crop's area, as a fraction of the image.
        ratio: range of the random crop's aspect ratio.
        pad_crop: padding in pixels before a random crop of img_size, which then replaces the random resized crop; for
            small images; 0 for off (unset: 1 for digits, 0 else).
        hflip: probability of a horizontal flip (unset: 0 for digits, 0.5 else).
        vflip: probability of a vertical flip.
        color_jitter: strength of random brightness, contrast and saturation; replaced by auto_augment (unset: 0 for
            digits, 0.4 else).
        auto_augment: timm's augmentation policy, such as rand-m9-mstd0.5-inc1.
        reprob: probability of random erasing.
        remode: what an erased rectangle becomes, const (zero), rand (one color) or pixel (noise).
        keep_ratio: visible fraction of every image, in training and evaluation, or a range such as [0.1, 1.0] to draw
            it from for each image. In evaluation an image always has the same mask.
        mask: kind of random masks: visible patches or pixels, one hidden block, or any of these.
        mask_patch: side of the patches, in pixels of the image given to the model.
        mask_root: instead, a folder with a mask for each image, under the image's path in root with the suffix .png:
            zero hides a pixel. An image without a mask is whole, or refused if strict.
        balanced: draw training images so that all classes occur equally often in an epoch, which is as long as before;
            those of small classes several times, augmented anew.
        workers: processes that load images; 0 for the training process.
        cache: decode every image once and keep the bytes in memory, for sets that fit.
        strict: stop at a damaged image; otherwise it is skipped and counted.
    """

    source: str = "digits"
    root: str | None = None
    labels: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    val_split: str | None = None
    val_fraction: Annotated[float, FRACTION_BELOW_1] | None = None
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
    crop_pct: Annotated[float, FRACTION_ABOVE_0] | None = None
    train_interpolation: str = "random"
    scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (0.08, 1.0)
    ratio: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] = (3 / 4, 4 / 3)
    pad_crop: Annotated[int, NATURAL] | None = None
    hflip: Annotated[float, FRACTION] | None = None
    vflip: Annotated[float, FRACTION] = 0.0
    color_jitter: Annotated[float, NONNEGATIVE] | None = None
    auto_augment: str | None = None
    reprob: Annotated[float, FRACTION] = 0.0
    remode: str = "pixel"
    keep_ratio: (
        Annotated[float, FRACTION_ABOVE_0]
        | tuple[Annotated[float, FRACTION_ABOVE_0], Annotated[float, FRACTION_ABOVE_0]]
    ) = 1.0
    mask: str = "patches"
    mask_patch: Annotated[int, COUNT] = 4
    mask_root: str | None = None
    balanced: bool = False
    workers: Annotated[int, NATURAL] = 0
    cache: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "data.")


T = TypeVar("T")


def filled(value: T | None) -> T:
    """A setting that `pointmix.data.images.resolve` has filled in."""
    if value is None:
        raise ValueError("the configuration is incomplete; call pointmix.data.images.resolve.resolve first")
    return value


def keep_range(keep: float | Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest visible fraction of an image; `data.keep_ratio`."""
    low, high = (keep, keep) if isinstance(keep, int | float) else keep  # a list, if read back from JSON
    return low, high


def is_partial(config: DataConfig) -> bool:
    """Whether the images of this configuration have masks."""
    return config.mask_root is not None or keep_range(config.keep_ratio) != (1, 1)
