"""Classification of images, whole or partly hidden."""

from __future__ import annotations

from pointmix.tasks.classify_images.config import ClassifyImagesConfig, MixConfig

__all__ = ["ClassifyImagesConfig", "MixConfig"]
