"""Color, depth and label images side by side: NAME_rgb.png, NAME_depth.png, NAME_label.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pointmix.data.paths import existing, files_below
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import label_rules, listed_classes
from pointmix.data.segment.images.masks import MaskReader
from pointmix.data.segment.images.rgbd import read_meters
from pointmix.data.segment.sample import LabeledImage
from pointmix.data.segment.source import Color, register_segment_source
from pointmix.data.splits import shortened
from pointmix.io.formats.pillow import open_image
from pointmix.io.image_files import MODES, decode, is_image

FOLDERS = {"train": ("train", "learn"), "val": ("val",), "test": ("test",)}
KINDS = ("rgb", "depth", "label")


@dataclass(frozen=True)
class RGBDFiles:
    """A `pointmix.data.segment.source.SegmentSource` of color, depth and label files.

    Args:
        files: color, depth and label file of each image.
        masks: reads the label files.
        mode: Pillow's mode of the color images, "L" or "RGB".
        depth_scale: units of the depth files per meter, if they hold integers; floats are meters.
        intrinsics: of all images, see `LabeledImage`.
        classes, palette: see `SegmentSource`.
    """

    files: Sequence[tuple[Path, Path, Path]]
    masks: MaskReader
    mode: str
    depth_scale: float
    intrinsics: tuple[float, float, float, float] | None
    classes: tuple[str, ...]
    palette: Sequence[Color] | None
    categories: None = None

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return str(self.files[index][0])

    def read(self, index: int) -> LabeledImage:
        """An image with its depth (0 where the file has no finite depth above 0) and labels.

        Raises:
            UnreadableSample: if the color file is damaged.
            UnreadableSample, BadMask: as `read_meters` and `MaskReader.read`.
        """
        rgb, depth, label = self.files[index]
        image = decode(partial(open_image, rgb), self.mode)
        size = (image.height, image.width)
        meters = read_meters(depth, self.depth_scale, size)
        return LabeledImage(image, self.masks.read(label, size), depth=meters, intrinsics=self.intrinsics)


def _check(config: SegmentDataConfig) -> None:
    if config.rgbd == "cloud" and config.intrinsics is None:
        raise ValueError("data.rgbd is cloud, which needs the camera: set data.intrinsics to fx, fy, cx, cy in pixels")
    if config.rgbd == "cloud" and config.keep_ratio not in (1.0, (1.0, 1.0)):
        raise ValueError(f"data.keep_ratio {config.keep_ratio} is for images, data.rgbd is cloud; leave it out")
    if config.intrinsics is not None and not (min(config.intrinsics[:2]) > 0 and np.isfinite(config.intrinsics).all()):
        raise ValueError(f"data.intrinsics {config.intrinsics}: expected fx, fy, cx, cy, the first two above 0")


@register_segment_source("rgbd", kind="rgbd", check=_check)
def open_rgbd(config: SegmentDataConfig, split: str) -> RGBDFiles | None:
    """ROOT/train (or "learn"), ROOT/val if there is one, and ROOT/test with NAME_rgb, NAME_depth and NAME_label files.
    Class names are the lines of ROOT/classes.txt, unless `data.classes` or `data.palette_file` name them.

    Raises:
        FileNotFoundError: if the folder or the split does not exist.
        ValueError: if an image is incomplete, or classes are not known.
    """
    root = existing(config.root)
    folder = next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)
    if folder is None:
        if split == "val":
            return None
        raise FileNotFoundError(f"data.root {root}: no folder {' or '.join(FOLDERS[split])}")
    classes, masks, palette = label_rules(config, classes=listed_classes(config, root))
    mode = MODES[config.in_chans or 3]
    return RGBDFiles(_triples(folder), masks, mode, config.depth_scale, config.intrinsics, classes, palette)


def _triples(folder: Path) -> list[tuple[Path, Path, Path]]:
    """The files of every image below a folder.

    Raises:
        ValueError: if there is none, or one lacks a file or has two of a kind.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in files_below(folder):
        key, _, kind = path.relative_to(folder).with_suffix("").as_posix().rpartition("_")
        if kind not in KINDS or not (is_image(path) or (kind == "depth" and path.suffix.lower() == ".npy")):
            continue
        if kind in found.setdefault(key, {}):
            raise ValueError(f"{found[key][kind]} and {path} differ only in their suffix, expected one of them")
        found[key][kind] = path
    if not found:
        raise ValueError(f"{folder} has no NAME_rgb.png, NAME_depth.png and NAME_label.png")
    lacking = [f"{key}_{kind}" for key, files in found.items() for kind in KINDS if kind not in files]
    if lacking:
        raise ValueError(f"{folder}: {len(lacking)} files are missing: {shortened(lacking)}")
    return [(files["rgb"], files["depth"], files["label"]) for files in found.values()]
