"""Defaults and checks of an image configuration before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pointmix.data.images import sources  # noqa: F401  registers the sources of this package
from pointmix.data.images.config import (
    CHOICES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    POLICIES,
    DataConfig,
    filled,
    keep_range,
)
from pointmix.data.images.source import SOURCES
from pointmix.io.image_files import MODES
from pointmix.utils.limits import check_limit

DEFAULTS: dict[str, object] = {  # for settings that are None, unless the source has its own
    "img_size": 224,
    "in_chans": 3,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "val_fraction": 0.1,
    "crop_pct": 0.9,
    "pad_crop": 0,
    "hflip": 0.5,
    "color_jitter": 0.4,
}


def resolve(cfg: DataConfig) -> DataConfig:
    """Fill in settings that are None, and check those that depend on each other.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    defaults = dict(DEFAULTS)
    if cfg.source in SOURCES:  # otherwise opening the source fails, where that is needed
        defaults |= SOURCES.checked(cfg).defaults
    changes: dict[str, Any] = {key: value for key, value in defaults.items() if getattr(cfg, key) is None}
    cfg = dataclasses.replace(cfg, **changes)
    if cfg.in_chans not in MODES:
        raise ValueError(f"data.in_chans {cfg.in_chans}: expected 1 (grayscale) or 3 (RGB)")
    channels: dict[str, Any] = {
        key: per_channel(key, getattr(cfg, key), defaults[key], filled(cfg.in_chans)) for key in ("mean", "std")
    }
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
    check_limit("IMAGE_PIXELS", filled(cfg.img_size) ** 2, f"data.img_size {cfg.img_size}: such an image")
    low, high = keep_range(cfg.keep_ratio)
    if low > high:
        raise ValueError(
            f"data.keep_ratio {cfg.keep_ratio}: expected a fraction above 0, up to 1, or two, the smaller first"
        )
    if cfg.mask_root is not None and (low, high) != (1, 1):
        raise ValueError(
            f"data.keep_ratio {cfg.keep_ratio} with data.mask_root {cfg.mask_root}: expected one of the two"
        )
    if cfg.mask_root is not None and policy is not None and not policy.startswith("3a"):
        raise ValueError(
            f"data.auto_augment {policy!r} moves pixels but not the masks of data.mask_root; expected null or 3a"
        )
    return dataclasses.replace(cfg, **channels)


def per_channel(key: str, given: Sequence[float], default: object, in_chans: int) -> tuple[float, ...]:
    """The values of a setting for all channels.

    Args:
        key: name of the setting.
        given: a value for each channel, or one for all.
        default: of images in color; grayscale images get its mean.

    Raises:
        ValueError: there are values for another number of channels.
    """
    values = tuple(float(value) for value in given)
    if in_chans == 1 and values == default:
        values = (sum(values) / len(values),)
    if len(values) not in (1, in_chans):
        raise ValueError(f"data.{key} has {len(values)} values for {in_chans} channels")
    return values * (in_chans // len(values))
