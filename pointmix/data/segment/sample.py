"""What sources of labeled pixels and points read, and the batches that a network is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from PIL import Image
from torch import Tensor

from pointmix.data.clouds.named import NamedCloud
from pointmix.pointset import PointSet

IGNORE = -1  # label of pixels and points that are neither trained on nor counted


def ignored_label(given: int | None, num_classes: int, *, first: int) -> int:
    """The label of files that is ignored: the one of data.ignore_index, else 255.

    Args:
        first: label of the first class.

    Raises:
        ValueError: if none is given and 255 is a class.
    """
    if given is None and first + num_classes > 255:
        raise ValueError(f"label 255 is one of {num_classes} classes, and ignored by default; set data.ignore_index")
    return 255 if given is None else given


@dataclass(frozen=True)
class LabeledImage:
    """An image with a label for every pixel.

    Args:
        image: H rows, W columns, gray or RGB, upright.
        label: (H, W) classes from 0, or `IGNORE`.
        depth: (H, W) meters, 0 where there is none.
        intrinsics: fx, fy, cx, cy of the depth camera in pixels, see `PointSet.from_rgbd`.
        instance: (H, W) number of the object that a pixel belongs to, 0 for none.
    """

    image: Image.Image
    label: Int[np.ndarray, "H W"]
    depth: Float[np.ndarray, "H W"] | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    instance: Int[np.ndarray, "H W"] | None = None


@dataclass(frozen=True)
class LabeledCloud(NamedCloud):
    """A cloud with a label for every point.

    Args:
        pos, features: see `NamedCloud`.
        label: (N,) classes from 0, or `IGNORE`.
        category: class of the whole object, where parts are labeled; None for scenes.
    """

    label: Int[np.ndarray, "N"]
    category: int | None = None

    def subset(self, chosen: Bool[np.ndarray, " N"], names: Iterable[str]) -> LabeledCloud:
        features = {name: self.features[name][chosen] for name in names}
        return replace(self, pos=self.pos[chosen], features=features, label=self.label[chosen])


class SegmentBatch(NamedTuple):
    """B samples.

    Args:
        points: N points in B sets, with the features that the network takes.
        labels: (N,) classes from 0, or `IGNORE`.
        category: (B,) category of each object, None if there are no categories.
    """

    points: PointSet
    labels: Int64[Tensor, " N"]
    category: Int64[Tensor, " B"] | None = None
