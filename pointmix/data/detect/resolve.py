"""Defaults and checks of the settings of images with objects before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pointmix.data.detect import sources  # noqa: F401  registers the sources of this package
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.source import DETECT_SOURCES
from pointmix.data.images.config import IMAGENET_MEAN, IMAGENET_STD, filled, keep_range
from pointmix.data.images.resolve import per_channel
from pointmix.io.image_files import MODES
from pointmix.utils.limits import check_limit

DEFAULTS: Mapping[str, object] = {  # for settings that are None, unless the source has its own
    "in_chans": 3,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "short_side": 800,
    "max_side": 1333,
    "hflip": 0.5,
    "photometric": False,
}


def resolve(cfg: DetectDataConfig) -> DetectDataConfig:
    """Fill in settings that are None, and check those that depend on each other. val_fraction and masks stay as they
    are: what None means depends on the data.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    entry = DETECT_SOURCES.checked(cfg)
    defaults: dict[str, Any] = {**DEFAULTS, **entry.defaults}
    changes: dict[str, Any] = {key: value for key, value in defaults.items() if getattr(cfg, key) is None}
    cfg = dataclasses.replace(cfg, **changes)
    if (in_chans := filled(cfg.in_chans)) not in MODES:
        raise ValueError(f"data.in_chans {in_chans}: expected 1 (grayscale) or 3 (RGB)")
    mean, std = (per_channel(key, getattr(cfg, key), defaults[key], in_chans) for key in ("mean", "std"))
    sides = filled(cfg.train_short_sides) if cfg.train_short_sides is not None else (filled(cfg.short_side),)
    if not sides:
        raise ValueError("data.train_short_sides is empty, expected the short sides to draw from")
    if cfg.classes is not None and (not cfg.classes or len(set(cfg.classes)) < len(cfg.classes) or "" in cfg.classes):
        raise ValueError(f"data.classes {', '.join(cfg.classes) or 'is empty'}: expected names, each once")
    _check_jitter(cfg)
    if (keep := keep_range(cfg.keep_ratio))[0] > keep[1]:
        what = "a fraction above 0, up to 1, or two, the smaller first"
        raise ValueError(f"data.keep_ratio {cfg.keep_ratio}: expected {what}")
    if cfg.copy_paste and cfg.masks is False:
        raise ValueError(
            f"data.copy_paste {cfg.copy_paste} needs masks, but data.masks is false; expected one of the two"
        )
    longest = padded(filled(cfg.max_side), cfg.size_multiple)
    shortest = padded(min(filled(cfg.max_side), max(*sides, filled(cfg.short_side))), cfg.size_multiple)
    check_limit("IMAGE_PIXELS", longest * shortest, f"data.max_side {cfg.max_side}: such an image")
    return dataclasses.replace(cfg, mean=mean, std=std)


def padded(side: int, multiple: int) -> int:
    """The next multiple."""
    return -(-side // multiple) * multiple


def _check_jitter(cfg: DetectDataConfig) -> None:
    low, high = cfg.jitter_scale or (1.0, 1.0)
    if low > high:
        raise ValueError(f"data.jitter_scale {low}, {high}: expected two positive numbers, the smaller first")
    if (cfg.jitter_scale is None) != (cfg.crop_size is None):
        given, other = ("crop_size", "jitter_scale") if cfg.jitter_scale is None else ("jitter_scale", "crop_size")
        raise ValueError(f"data.{given} without data.{other}: expected both for large-scale jitter, or neither")
    if cfg.jitter_scale is not None and cfg.train_short_sides is not None:
        raise ValueError("data.train_short_sides with data.jitter_scale, which draws sizes too: expected one of them")
    rows, columns = cfg.crop_size or (1, 1)
    check_limit("IMAGE_PIXELS", rows * columns, f"data.crop_size {rows}, {columns}: such an image")
