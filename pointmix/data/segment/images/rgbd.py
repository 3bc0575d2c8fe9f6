"""Depth of labeled images, and the labeled clouds that it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pointmix.data.segment.sample import IGNORE, LabeledCloud, LabeledImage
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.io.image_files import read_depth
from pointmix.io.images import wrong_size
from pointmix.io.rgbd import as_meters, rgbd_points
from pointmix.utils.messages import one_line


def read_meters(path: str | Path, depth_scale: float, size: tuple[int, int]) -> Float32[np.ndarray, "H W"]:
    """The depth in a file in meters, 0 where it has none that is finite and above 0.

    Args:
        depth_scale: units per meter of a file of integers; floats are meters.
        size: rows and columns of its image.

    Raises:
        UnreadableSample: if it is damaged or no depth image.
        BadMask: if it has another size.
    """
    try:
        meters = as_meters(read_depth(path), depth_scale).numpy()
    except (ValueError, OSError) as e:
        raise UnreadableSample(f"cannot use depth {path}: {one_line(e)}") from e
    if meters.shape != size:
        raise BadMask(f"depth {path} {wrong_size(meters.shape, size)}")
    return np.where(np.isfinite(meters) & (meters > 0), meters, 0).astype(np.float32)


def as_labeled_cloud(sample: LabeledImage) -> LabeledCloud:
    """The pixels with depth as a cloud in meters in the camera's frame (x right, y down, z forward), row by row, with
    their colors as feature "rgb" (uint8).

    Raises:
        UnreadableSample: if no pixel has a depth, none that has one has a label, or the camera's center is outside.
        ValueError: if the camera is not known.
    """
    if sample.depth is None or sample.intrinsics is None:
        raise ValueError(
            "a cloud is made of an image with depth and the intrinsics of its camera: set data.intrinsics to fx, fy, "
            "cx, cy"
        )
    rgb = np.asarray(sample.image.convert("RGB"))
    valid = sample.depth > 0  # (H, W)
    if not valid.any():
        raise UnreadableSample("no pixel has a depth, expected one at least")
    label = sample.label[valid]
    if (label == IGNORE).all():
        raise UnreadableSample("no pixel with a depth has a label, expected one at least")
    try:
        pos, _ = rgbd_points(rgb, sample.depth, np.array(sample.intrinsics))
    except ValueError as e:
        raise UnreadableSample(f"cannot make a cloud of it: {one_line(e)}") from e
    return LabeledCloud(pos.numpy(), {"rgb": rgb[valid]}, label)
