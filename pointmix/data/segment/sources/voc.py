"""PASCAL VOC 2012 segmentation: 20 kinds of objects and the background."""

from __future__ import annotations

from pointmix.data.paths import existing, read_lines
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import ImageFiles, labeled_files
from pointmix.data.segment.source import Color, register_segment_source
from pointmix.data.splits import shortened

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LISTS, IMAGES, MASKS = "ImageSets/Segmentation", "JPEGImages", "SegmentationClass"
MORE_MASKS = "SegmentationClassAug"  # labels of Hariharan et al. (SBD) for 10,582 training images


def voc_color(label: int) -> Color:
    """The color of a label in VOC's palette: its bits, three at a time, are the high bits of red, green and blue."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red, green, blue = (value | ((label >> bit & 1) << shift) for bit, value in enumerate((red, green, blue)))
        label >>= 3
    return red, green, blue


@register_segment_source("voc", kind="image")
def open_voc(config: SegmentDataConfig, split: str) -> ImageFiles | None:
    """ROOT/JPEGImages, ROOT/SegmentationClass and the lists ROOT/ImageSets/Segmentation/train.txt and val.txt; ROOT is
    the folder VOC2012. The test split is the official validation split; there is none for "val". Where both
    SegmentationClassAug and trainaug.txt exist, they are what is trained on.

    Raises:
        FileNotFoundError, ValueError: if folders or files are missing.
    """
    if split == "val":
        return None
    root = existing(config.root, LISTS, IMAGES, MASKS)
    augmented = split == "train" and (root / MORE_MASKS).is_dir() and (root / LISTS / "trainaug.txt").is_file()
    name, masks = ("trainaug", MORE_MASKS) if augmented else ({"train": "train", "test": "val"}[split], MASKS)
    path = root / LISTS / f"{name}.txt"
    stems = read_lines(path)
    if split == "train" and (shared := sorted(set(stems) & set(read_lines(root / LISTS / "val.txt")))):
        raise ValueError(f"{path}: {shortened(shared)} in val.txt too, expected each image in one list")
    pairs = [(root / IMAGES / f"{stem}.jpg", root / masks / f"{stem}.png") for stem in stems]
    for number, pair in enumerate(pairs, start=1):
        for file in pair:
            if not file.is_file():
                raise FileNotFoundError(f"{path}, line {number}: no file {file}")
    return labeled_files(config, pairs, classes=CLASSES, palette=[voc_color(label) for label in range(len(CLASSES))])
