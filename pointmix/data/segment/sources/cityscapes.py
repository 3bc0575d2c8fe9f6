"""Cityscapes with its 19 classes for training and evaluation."""

from __future__ import annotations

from pathlib import Path

from pointmix.data.images.pairs import find_images, paired
from pointmix.data.paths import existing
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import ImageFiles, labeled_files
from pointmix.data.segment.source import Color, register_segment_source

FOLDERS = {"train": "train", "test": "val"}  # the labels of the test images are not public
IMAGE, MASK = "_leftImg8bit", "_gtFine_labelIds"  # ends of file names
LABELS: dict[str, tuple[int, Color]] = {  # label id in the files, color
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
DEFAULTS = {"label_map": {value: label for label, (value, _) in enumerate(LABELS.values())}, "crop_size": (512, 1024)}


@register_segment_source("cityscapes", kind="image", defaults=DEFAULTS)
def open_cityscapes(config: SegmentDataConfig, split: str) -> ImageFiles | None:
    """ROOT/leftImg8bit/train/CITY/*_leftImg8bit.png and ROOT/gtFine/train/CITY/*_gtFine_labelIds.png and so on. The
    test split is the official validation split; there is none for "val".

    Raises:
        FileNotFoundError, ValueError: if folders or files are missing.
    """
    if split == "val":
        return None
    images, masks = f"leftImg8bit/{FOLDERS[split]}", f"gtFine/{FOLDERS[split]}"
    root = existing(config.root, images, masks)
    pairs = paired(_ending(root / images, IMAGE), _ending(root / masks, MASK))
    palette = [color for _, color in LABELS.values()]
    return labeled_files(config, pairs, classes=list(LABELS), palette=palette)


def _ending(folder: Path, end: str) -> dict[str, Path]:
    """The image files whose names end so, by the part before it."""
    return {key.removesuffix(end): path for key, path in find_images(folder).items() if key.endswith(end)}
