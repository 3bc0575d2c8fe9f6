"""A label for every pixel or point."""

from __future__ import annotations

from pointmix.tasks.segment.config import SegmentConfig
from pointmix.tasks.segment.loss import LossConfig
from pointmix.tasks.segment.task import Segment

__all__ = ["LossConfig", "Segment", "SegmentConfig"]
