"""Labeled images with depth as labeled clouds."""

from __future__ import annotations

import numpy as np

from pointmix.data.segment.sample import IGNORE, LabeledCloud, LabeledImage
from pointmix.io.errors import UnreadableSample
from pointmix.io.rgbd import rgbd_points


def as_labeled_cloud(sample: LabeledImage) -> LabeledCloud:
    """The pixels with depth as a cloud in meters in the camera's frame (x right, y down, z forward), row by row, with
    their colors as feature "rgb" (uint8).

    Raises:
        UnreadableSample: if no pixel has a depth, or none that has one has a label.
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
    pos, _ = rgbd_points(rgb, sample.depth, np.array(sample.intrinsics))
    return LabeledCloud(pos.numpy(), {"rgb": rgb[valid]}, label)
