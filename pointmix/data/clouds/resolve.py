"""Defaults and checks of a point-cloud configuration before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pointmix.data.clouds import sources  # noqa: F401  registers the sources of this package
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.source import SOURCES

DEFAULTS: Mapping[str, object] = {"sampling": "first", "normalize": "none", "up": "z"}  # unless the source has its own


def resolve(config: PointDataConfig) -> PointDataConfig:
    """Fill in settings that are None, and check those that depend on each other. val_fraction stays as it is: what None
    means depends on the data.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    source = SOURCES.checked(config)
    defaults = {**DEFAULTS, **source.defaults}
    changes: dict[str, Any] = {key: value for key, value in defaults.items() if getattr(config, key) is None}
    config = dataclasses.replace(config, **changes)
    low, high = config.scale
    if low > high:
        raise ValueError(f"data.scale {low}, {high}: expected two positive numbers, the smaller first")
    if config.points is not None and config.max_points is not None:
        raise ValueError(f"data.max_points {config.max_points} with data.points {config.points}; set points to null")
    if config.fold is not None and not 2 <= config.fold[1] >= config.fold[0]:
        raise ValueError(f"data.fold {config.fold}: expected k, n with k from 1 to n, and n at least 2")
    if len(set(config.features)) < len(config.features):
        raise ValueError(f"data.features {', '.join(config.features)}: expected each name once")
    return config


def check_keep_ratio(keep_ratio: float, config: PointDataConfig) -> None:
    """Raise ValueError for a fraction of points that is out of range or leaves no point."""
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"keep {keep_ratio}: expected a fraction of the points above 0, up to 1")
    if config.points is not None and keep_ratio * config.points < 1:
        least = 1 / config.points
        raise ValueError(f"keep {keep_ratio}: leaves none of {config.points} points, expected at least {least:.2g}")
