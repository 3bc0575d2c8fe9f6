"""What sources of images with objects read, and the batches that a network is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from PIL import Image
from torch import Tensor

from pointmix.pointset import PointSet


class Rle(TypedDict):
    """A mask as COCO's compressed run lengths."""

    size: list[int]  # H, W
    counts: bytes


@dataclass(frozen=True)
class Objects:
    """The M objects of an image; M may be 0.

    Args:
        boxes: (M, 4) corners x1, y1, x2, y2 in pixels: the first pixel reaches from 0 to 1. A part of each is in the
            image; the rest may be outside.
        labels: (M,) classes from 0.
        crowd: (M,) whether it is a group of objects, which is not trained on, and whose detections do not count.
        area: (M,) pixels of the object, by which AP of small, medium and large objects is taken.
        masks: of each object, in the size of the image; None if the data have boxes only.
    """

    boxes: Float64[np.ndarray, "M 4"]
    labels: Int64[np.ndarray, " M"]
    crowd: Bool[np.ndarray, " M"]
    area: Float64[np.ndarray, " M"]
    masks: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def without_masks(self) -> Objects:
        """Their boxes alone."""
        return replace(self, masks=None)


@dataclass(frozen=True)
class ObjectImage:
    """An image with its objects.

    Args:
        image: H rows, W columns, gray or RGB, upright.
        objects: in its pixels.
        image_id: by which results name it, unique within its split.
    """

    image: Image.Image
    objects: Objects
    image_id: int | str


class Target(NamedTuple):
    """The objects of one training image, in its pixels after augmentation.

    Args:
        boxes: (M, 4) corners x1, y1, x2, y2.
        labels: (M,) classes from 0.
        masks: (M, h, w) 0 or 1; None if the data have boxes only.
    """

    boxes: Float32[Tensor, "M 4"]
    labels: Int64[Tensor, " M"]
    masks: UInt8[Tensor, "M h w"] | None = None


@dataclass(frozen=True)
class Truth:
    """What an evaluated image is compared with.

    Args:
        image_id: see `ObjectImage`.
        name: its file, for messages.
        size: H, W of the image as it was read.
        objects: in its pixels.
    """

    image_id: int | str
    name: str
    size: tuple[int, int]
    objects: Objects


class DetectBatch(NamedTuple):
    """B images on one lattice, each at its upper left; the rest of the lattice is zero.

    Args:
        points: the images, a `Grid`, or a `SparseGrid` if pixels are hidden.
        sizes: (B, 2) rows and columns of each image on the lattice.
        targets: of each image, in training.
        truths: of each image, in evaluation.
    """

    points: PointSet
    sizes: Int64[Tensor, "B 2"]
    targets: list[Target] | None = None
    truths: list[Truth] | None = None
