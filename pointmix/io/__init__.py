"""Files and arrays to tensors and back.

A file format is one module in `pointmix.io.formats`, or one of your own that calls `register_reader`.
"""

from pointmix.io.cloud_file import CloudFile, FoundCloud
from pointmix.io.clouds import read_cloud
from pointmix.io.columns import is_cloud, open_clouds, read_columns
from pointmix.io.image_files import is_image, read_depth, read_image, read_mask, read_masked_image
from pointmix.io.registry import Columns, register_image_reader, register_reader

__all__ = [
    "CloudFile",
    "Columns",
    "FoundCloud",
    "is_cloud",
    "is_image",
    "open_clouds",
    "read_cloud",
    "read_columns",
    "read_depth",
    "read_image",
    "read_mask",
    "read_masked_image",
    "register_image_reader",
    "register_reader",
]
