"""Point-cloud data: configuration, sources, transforms, loaders."""

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.source import register_source
from pointmix.data.clouds.splits import PointSplits, build_points, build_points_test

__all__ = ["NamedCloud", "PointDataConfig", "PointSplits", "build_points", "build_points_test", "register_source"]
