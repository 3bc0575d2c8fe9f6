"""Classification of point clouds."""

from __future__ import annotations

from pointmix.tasks.classify_points.config import ClassifyPointsConfig, SmoothConfig

__all__ = ["ClassifyPointsConfig", "SmoothConfig"]
