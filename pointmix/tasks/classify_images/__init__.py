"""Classification of images, whole or partly hidden."""

from __future__ import annotations

from pointmix.tasks.classify_images.config import ClassifyImagesConfig, MixConfig
from pointmix.tasks.classify_images.task import ClassifyImages

__all__ = ["ClassifyImages", "ClassifyImagesConfig", "MixConfig"]
