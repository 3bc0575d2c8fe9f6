"""CamVid in the form of the SegNet tutorial: 11 classes, label 11 is void; with official train, val and test splits."""

from __future__ import annotations

from pathlib import Path

from pointmix.data.images.pairs import Pair, find_images, paired
from pointmix.data.paths import existing, read_lines
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import ImageFiles, labeled_files
from pointmix.data.segment.source import Color, register_segment_source

CLASSES: dict[str, Color] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
DEFAULTS = {"ignore_index": 11, "crop_size": (360, 360)}


@register_segment_source("camvid", kind="image", defaults=DEFAULTS)
def open_camvid(config: SegmentDataConfig, split: str) -> ImageFiles:
    """ROOT/train/NAME.png with ROOT/trainannot/NAME.png, and so on. Where there is a list ROOT/train.txt, only the
    images that it names are read: one a line, which may be followed by its mask, as in the tutorial.

    Raises:
        FileNotFoundError, ValueError: if folders or files are missing.
    """
    root = existing(config.root, split, f"{split}annot")
    pairs = paired(find_images(root / split), find_images(root / f"{split}annot"))
    if (root / f"{split}.txt").is_file():
        pairs = _listed(pairs, root / f"{split}.txt")
    return labeled_files(config, pairs, classes=list(CLASSES), palette=list(CLASSES.values()))


def _listed(pairs: list[Pair], path: Path) -> list[Pair]:
    """The pairs whose images a list names. The tutorial's paths begin with a folder of its author, so that only the
    names of files count."""
    by_name = {image.name: (image, mask) for image, mask in pairs}
    listed = []
    for number, line in enumerate(read_lines(path), start=1):
        names = [Path(word).name for word in line.split()]
        if names[0] not in by_name:
            raise FileNotFoundError(f"{path}, line {number}: no image {names[0]}")
        pair = by_name[names[0]]
        if len(names) > 2 or (len(names) == 2 and names[1] != pair[1].name):
            raise ValueError(f"{path}, line {number}: {line[:80]!r}; expected an image and the mask of its name")
        if pair in listed:
            raise ValueError(f"{path}, line {number}: {names[0]} occurs twice, expected each image once")
        listed.append(pair)
    return listed
