"""Checks of settings, for several sources."""

from __future__ import annotations

from pointmix.data.detect.config import DetectDataConfig


def check_unused(config: DetectDataConfig, *keys: str) -> None:
    """Raise ValueError if one of these settings of other sources is set."""
    if used := [key for key in keys if getattr(config, key) is not None]:
        raise ValueError(f"data.{used[0]} is set, but data.source is {config.source}, which does not use it")
