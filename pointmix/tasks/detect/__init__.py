"""Boxes, masks and classes of the objects in images."""

from __future__ import annotations

from pointmix.tasks.detect.config import DetectConfig
from pointmix.tasks.detect.task import Detect

__all__ = ["Detect", "DetectConfig"]
