"""Image data: configuration, sources, transforms, masks, loaders."""

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source
from pointmix.data.images.splits import ImageSplits, build_data, build_test

__all__ = ["DataConfig", "ImageSource", "ImageSplits", "build_data", "build_test", "register_source"]
