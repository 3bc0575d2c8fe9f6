"""Boxes, masks and classes of the objects in images."""

from __future__ import annotations

from pointmix.tasks.detect.config import DetectConfig

__all__ = ["DetectConfig"]
