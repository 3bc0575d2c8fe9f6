"""Checks of a point-cloud configuration before anything is read."""

from __future__ import annotations

from pointmix.data.clouds import sources  # noqa: F401  registers the sources of this package
from pointmix.data.clouds.config import CHOICES, PointDataConfig
from pointmix.data.clouds.source import SOURCES


def resolve(config: PointDataConfig) -> PointDataConfig:
    """Check the choices, and the settings that depend on each other.

    Raises:
        ValueError: naming the setting, its value and what was expected.
    """
    source = SOURCES.find(config.source)
    for key, expected in CHOICES.items():
        if getattr(config, key) not in expected:
            raise ValueError(f"data.{key} {getattr(config, key)!r}: expected one of {', '.join(expected)}")
    source.check(config)
    low, high = config.scale
    if low > high:
        raise ValueError(f"data.scale {low}, {high}: expected two positive numbers, the smaller first")
    return config


def check_keep_ratio(keep_ratio: float, config: PointDataConfig) -> None:
    """Raise ValueError for a fraction of points that is out of range or leaves no point."""
    if not 0 < keep_ratio <= 1:
        raise ValueError(f"keep {keep_ratio}: expected a fraction of the points above 0, up to 1")
    if keep_ratio * config.points < 1:
        least = 1 / config.points
        raise ValueError(f"keep {keep_ratio}: leaves none of {config.points} points, expected at least {least:.2g}")
