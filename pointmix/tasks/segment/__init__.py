"""A label for every pixel or point."""

from __future__ import annotations

from pointmix.tasks.segment.config import LossConfig, SegmentConfig

__all__ = ["LossConfig", "SegmentConfig"]
