"""Settings of image sources, and small image and mask files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from pointmix.data.segment import sources  # noqa: F401  registers them
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.config import IMAGE_DEFAULTS
from pointmix.data.segment.source import SEGMENT_SOURCES

SIZE = (6, 8)  # rows, columns


def image_config(source: str, root: Path | None = None, **settings: object) -> SegmentDataConfig:
    """Settings of an image source, with the source's and the general defaults filled in."""
    config = SegmentDataConfig(source=source, root=None if root is None else str(root), **settings)
    own = SEGMENT_SOURCES.find(source).defaults if source in SEGMENT_SOURCES else {}
    filled = {key: value for key, value in {**IMAGE_DEFAULTS, **own}.items() if getattr(config, key) is None}
    return dataclasses.replace(config, **filled)


def open_source(source: str, split: str, root: Path | None = None, **settings: object):
    """A split of a source with its defaults."""
    return SEGMENT_SOURCES.find(source).open(image_config(source, root, **settings), split)


def write_image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    """A noise image of (rows, columns)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def write_mask(path: Path, values: np.ndarray, palette: list[int] | None = None) -> Path:
    """A mask with these values, uint8, uint16 or RGB; with `palette` they are indices into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values)
    if palette is not None:
        mask.putpalette(palette)
    mask.save(path)
    return path


def stripes(classes: int, first: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask whose columns have the values first, first + 1, ... in turn."""
    return np.tile(first + np.arange(size[1]) % classes, (size[0], 1)).astype(np.uint8)
