"""Defaults and checks of the settings of labeled pixels and points before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pointmix.data.images.resolve import per_channel
from pointmix.data.segment import sources  # noqa: F401  registers the sources of this package
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.images.config import IMAGE_DEFAULTS, ImageSettings
from pointmix.data.segment.sample import IGNORE
from pointmix.data.segment.source import SEGMENT_SOURCES, Kind
from pointmix.io.image_files import MODES
from pointmix.utils.limits import check_limit

# For settings that are None, unless the source has its own.
CLOUD_DEFAULTS: Mapping[str, object] = {
    "features": (),
    "normalize": "center",
    "up": "z",
    "crop": "none",
    "rotate": 180.0,
}
DEFAULTS: Mapping[Kind, Mapping[str, object]] = {
    "image": IMAGE_DEFAULTS,
    "cloud": CLOUD_DEFAULTS,
    "rgbd": {**IMAGE_DEFAULTS, **CLOUD_DEFAULTS, "features": ("rgb",), "up": "y"},
}
OF_DEPTH = {"rgbd", "intrinsics", "depth_scale", "depth_mean", "depth_std"}


def resolve(cfg: SegmentDataConfig) -> SegmentDataConfig:
    """Fill in settings that are None, and check those that depend on each other. val_fraction stays as it is: what
    None means depends on the data.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    entry = SEGMENT_SOURCES.find(cfg.source)
    _refuse_others(cfg, entry.kind)
    given = _without_defaults(cfg, entry.defaults)
    entry.check(given)
    defaults = {"repeat": 1, **DEFAULTS[entry.kind], **entry.defaults}
    changes: dict[str, Any] = {key: value for key, value in defaults.items() if getattr(cfg, key) is None}
    cfg = dataclasses.replace(cfg, **changes)
    if entry.kind != "cloud":
        cfg = _resolve_image(cfg, defaults)
    for key in ("scale_range", "scale"):
        low, high = getattr(cfg, key) or (1.0, 1.0)
        if low > high:
            raise ValueError(f"data.{key} {low}, {high}: expected two positive numbers, the smaller first")
    if cfg.classes is not None and not cfg.classes:
        raise ValueError("data.classes is empty, expected the names of the classes in the order of their labels")
    _check_label_map(cfg)
    for key in ("label_map", "label_starts", "palette_file"):
        if given.ignore_index is not None and getattr(cfg, key) is not None:
            raise ValueError(
                f"data.ignore_index with data.{key}, which says itself what is ignored: expected one of them"
            )
    return cfg


def is_cloud(cfg: SegmentDataConfig) -> bool:
    """Whether the samples of these settings are clouds, and else images."""
    kind = SEGMENT_SOURCES.find(cfg.source).kind
    return kind == "cloud" or (kind == "rgbd" and cfg.rgbd == "cloud")


def is_sparse(cfg: SegmentDataConfig) -> bool:
    """Whether pixels of the images of these settings are left out."""
    keep = cfg.keep_ratio
    return (keep if isinstance(keep, int | float) else min(keep)) < 1 or cfg.rgbd == "lattice"


def _without_defaults(cfg: SegmentDataConfig, defaults: Mapping[str, object]) -> SegmentDataConfig:
    """The settings as they were before these defaults were filled in, if they were."""
    changes: dict[str, Any] = {key: None for key, value in defaults.items() if getattr(cfg, key) == value}
    return dataclasses.replace(cfg, **changes)


def _refuse_others(cfg: SegmentDataConfig, kind: Kind) -> None:
    """Refuse settings that the source would ignore. Depth images take those of images and of clouds, as data.rgbd says
    what they become."""
    image, cloud = ({field.name for field in dataclasses.fields(part)} for part in (ImageSettings, CloudSettings))
    unused = {"image": cloud | OF_DEPTH, "cloud": image, "rgbd": set()}[kind]
    for field in dataclasses.fields(cfg):
        value, name = getattr(cfg, field.name), field.name
        if name in unused and value not in (field.default, DEFAULTS[kind].get(name)):
            of = "depth images" if name in OF_DEPTH else "clouds" if name in cloud else "images"
            what = f"a setting of labeled {of}, which data.source {cfg.source} does not read"
            raise ValueError(f"data.{name} {value!r} is {what}; leave it out")


def _resolve_image(cfg: SegmentDataConfig, defaults: Mapping[str, Any]) -> SegmentDataConfig:
    if (in_chans := cfg.in_chans) is None or in_chans not in MODES:
        raise ValueError(f"data.in_chans {in_chans}: expected 1 (grayscale) or 3 (RGB)")
    channels = {key: per_channel(key, getattr(cfg, key), defaults[key], in_chans) for key in ("mean", "std")}
    keep = (cfg.keep_ratio,) * 2 if isinstance(cfg.keep_ratio, int | float) else cfg.keep_ratio
    if keep[0] > keep[1]:
        what = "a fraction above 0, up to 1, or two, the smaller first"
        raise ValueError(f"data.keep_ratio {cfg.keep_ratio}: expected {what}")
    rows, columns = cfg.crop_size or (1, 1)
    check_limit("IMAGE_PIXELS", rows * columns, f"data.crop_size {rows}, {columns}: such an image")
    return dataclasses.replace(cfg, mean=channels["mean"], std=channels["std"])


def _check_label_map(cfg: SegmentDataConfig) -> None:
    if cfg.label_map is None:
        return
    if cfg.reduce_zero_label:
        raise ValueError("data.label_map with data.reduce_zero_label: expected one of the two")
    if not isinstance(cfg.label_map, Mapping) or any(type(label) is not int for label in cfg.label_map):
        raise ValueError(f"data.label_map {cfg.label_map!r}: expected a class for each label")
    most = None if cfg.classes is None else len(cfg.classes) - 1
    for label, value in cfg.label_map.items():
        is_class = isinstance(value, int) and not isinstance(value, bool) and value >= IGNORE
        if not is_class or (most is not None and value > most):
            expected = f"a class from 0{'' if most is None else f' to {most}'}, or {IGNORE} to ignore it"
            raise ValueError(f"data.label_map gives label {label} the class {value!r}, expected {expected}")
