"""The configuration of images with objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pointmix.utils.ranges import (
    COUNT,
    FINITE,
    FRACTION,
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    NATURAL,
    POSITIVE,
    SEED,
    check_fields,
)

OF_SOURCES = ("root", "classes", "train_json", "val_json", "test_json", "test_fraction")  # settings of some sources


@dataclass(frozen=True)
class DetectDataConfig:
    """Images with boxes, masks and classes of objects, and their augmentation."""

    source: str = "scenes"
    """Where the images come from: scenes (digits on a canvas, nothing to download), coco, yolo, voc, instances (masks
    with a number an object), or a source of your own, see pointmix.data.detect.source."""
    root: str | None = None
    """Folder of the data."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the labels; null: those of the source."""
    train_json: str | None = None
    """Annotations of the training images for source coco, relative to root; null:
    annotations/instances_train2017.json."""
    val_json: str | None = None
    """Annotations of validation images for source coco; null: a part of train is held out."""
    test_json: str | None = None
    """Annotations of the test images for source coco; null: annotations/instances_val2017.json."""
    test_fraction: Annotated[float, FRACTION_BELOW_1] | None = None
    """Fraction held back as the test split for source instances, where there are no folders train and test: the images
    whose names have the smallest hashes. null: 0.2."""
    masks: bool | None = None
    """Read masks and train a mask head; null: if the source has masks."""
    val_fraction: Annotated[float, FRACTION_BELOW_1] | None = None
    """Fraction of train held out for model selection, 0 for none; null: 0.1, and none if the source has a validation
    split of its own, which is then used."""
    split_seed: Annotated[int, SEED] = 0
    """Seed of the held-out and limited samples; independent of the run's seed."""
    limit: Annotated[int, COUNT] | None = None
    """At most this many training images, for a quick try."""
    keep_empty: bool = False
    """Train on images without objects too, as far as their files tell without reading the pixels, and on crops without
    one, which are else drawn again, ten times at most."""
    in_chans: Annotated[int, COUNT] | None = None
    """Color channels, 1 grayscale or 3 RGB; files are converted. null: the source's or 3."""
    mean: tuple[Annotated[float, FINITE], ...] | None = None
    """Mean of every channel, of values in [0, 1], subtracted; null: the source's or ImageNet's."""
    std: tuple[Annotated[float, POSITIVE], ...] | None = None
    """Standard deviation of every channel, divided by; null: the source's or ImageNet's."""
    short_side: Annotated[int, COUNT] | None = None
    """Images are resized so that their short side has this many pixels; null: the source's or 800."""
    train_short_sides: tuple[Annotated[int, COUNT], ...] | None = None
    """Short sides of training images, one drawn for each image (multi-scale training); null: short_side."""
    max_side: Annotated[int, COUNT] | None = None
    """The long side gets at most this many pixels; null: the source's or 1333."""
    size_multiple: Annotated[int, COUNT] = 32
    """Lattices are padded to multiples of this."""
    jitter_scale: tuple[Annotated[float, POSITIVE], Annotated[float, POSITIVE]] | None = None
    """Large-scale jitter: training images are resized to a random multiple, within this range, of crop_size, and
    cropped or padded to it, such as 0.1, 2; null: off."""
    crop_size: tuple[Annotated[int, COUNT], Annotated[int, COUNT]] | None = None
    """Rows and columns of the crops of large-scale jitter."""
    hflip: Annotated[float, FRACTION] | None = None
    """Probability of a horizontal flip in training; null: the source's or 0.5."""
    photometric: bool | None = None
    """Random brightness, contrast, saturation and hue in training; null: the source's or false."""
    copy_paste: Annotated[float, FRACTION] = 0.0
    """Probability that objects of another training image are pasted into an image."""
    group_by_aspect: bool = True
    """Batches of training images that are all wider than high, or all higher than wide."""
    max_pixels: Annotated[int, COUNT] | None = None
    """A training batch of one process is closed before it has more pixels than this, with padding, so that batches of
    large images have fewer of them; null: every batch has batch_size images."""
    keep_ratio: (
        Annotated[float, FRACTION_ABOVE_0]
        | tuple[Annotated[float, FRACTION_ABOVE_0], Annotated[float, FRACTION_ABOVE_0]]
    ) = 1.0
    """Visible fraction of every image, in training and evaluation, or a range to draw it from. Hidden pixels are left
    out of the set."""
    mask: Literal["patches", "block", "pixels", "any"] = "patches"
    """Kind of random masks: visible patches or pixels, one hidden block, or any of these."""
    mask_patch: Annotated[int, COUNT] = 16
    """Side of the patches in pixels."""
    workers: Annotated[int, NATURAL] = 0
    """Processes that load images; 0 for the training process."""
    cache: bool = False
    """Read every image once and keep it in memory, for sets that fit."""
    strict: bool = False
    """Stop at a damaged image; otherwise it is skipped and counted."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
