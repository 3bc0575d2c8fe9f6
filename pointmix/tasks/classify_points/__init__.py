"""Classification of point clouds."""

from __future__ import annotations

from pointmix.tasks.classify_points.config import ClassifyPointsConfig, SmoothConfig
from pointmix.tasks.classify_points.task import ClassifyPoints

__all__ = ["ClassifyPoints", "ClassifyPointsConfig", "SmoothConfig"]
