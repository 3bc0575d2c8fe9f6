"""Objects of a training image: cut, resized, flipped, and pasted over others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Mask

from pointmix.data.detect import masks as rle
from pointmix.data.detect.sample import Objects, Target
from pointmix.data.images.crops import Crop, resized

CUT = 0.5  # pixels outside of which a box is taken from what is left of the mask
SMALLEST_SIDE = 1.0  # pixels; objects whose box is smaller are not trained on
LEAST_LEFT = 0.05  # objects of which less is left under a pasted one are not trained on,
FEWEST_LEFT = 10  # nor those with fewer pixels left


class Augmented(NamedTuple):
    """The objects of a training image on the way through the augmentation; fields as in `Target`."""

    boxes: Float64[Tensor, "M 4"]
    labels: Int64[Tensor, " M"]
    masks: Bool[Tensor, "M H W"] | None

    def take(self, chosen: Bool[Tensor, " M"]) -> Augmented:
        """Some of them."""
        return Augmented(self.boxes[chosen], self.labels[chosen], None if self.masks is None else self.masks[chosen])

    def target(self) -> Target:
        return Target(self.boxes.float(), self.labels, None if self.masks is None else self.masks.byte())


def trained_on(objects: Objects, size: tuple[int, int], *, masks: bool) -> Augmented:
    """The objects of an image of H, W that are no crowds, with their masks if asked for."""
    chosen = np.flatnonzero(~objects.crowd)
    decoded = None
    if masks and objects.masks is not None:
        decoded = torch.from_numpy(rle.decode([objects.masks[i] for i in chosen], size)).bool()
    return Augmented(torch.from_numpy(objects.boxes[chosen]), torch.from_numpy(objects.labels[chosen]), decoded)


def cut(objects: Augmented, crop: Crop, size: tuple[int, int]) -> Augmented:
    """The objects in a part of their image of H, W, resized; those that are not in it are left out."""
    moved = F.crop(_as_boxes(objects.boxes, size), crop.top, crop.left, crop.height, crop.width)  # and clamped
    moved = moved.as_subclass(Tensor)
    is_cut = (abs(moved - objects.boxes + moved.new_tensor([crop.left, crop.top] * 2)) > CUT).any(1)
    masks = None if objects.masks is None else _resized(crop.of(objects.masks), crop.rows, crop.cols, whole=~is_cut)
    factor = moved.new_tensor([crop.cols / crop.width, crop.rows / crop.height] * 2)
    return _settled(Augmented(moved * factor, objects.labels, masks), is_cut)


def flip(objects: Augmented, size: tuple[int, int]) -> Augmented:
    """The objects of an image of H, W mirrored left to right."""
    boxes = F.horizontal_flip(_as_boxes(objects.boxes, size)).as_subclass(Tensor)
    masks = None if objects.masks is None else F.horizontal_flip(Mask(objects.masks)).as_subclass(Tensor)
    return Augmented(boxes, objects.labels, masks)


def paste(
    image: UInt8[Tensor, "C H W"], objects: Augmented, other: UInt8[Tensor, "C H2 W2"], pasted: Augmented
) -> tuple[UInt8[Tensor, "C H W"], Augmented]:
    """An image with objects of another one at the place that they have there, each with probability one half, as in
    simple copy-paste (Ghiasi et al. 2021).

    What they hide is taken from the masks below, and boxes are those of what is left. An object of which too little is
    left is left out. Both images have masks.
    """
    size = (image.shape[1], image.shape[2])
    height, width = (min(sides) for sides in zip(size, other.shape[1:], strict=True))
    free = [0, 0, size[1] - width, size[0] - height]  # left, top, right, bottom
    pasted = cut(pasted, Crop(0, 0, height, width, height, width), (other.shape[1], other.shape[2]))
    pasted = pasted.take(torch.rand(len(pasted.labels)) < 0.5)
    if pasted.masks is None or objects.masks is None:
        raise ValueError("objects without masks cannot be pasted")
    above = F.pad(pasted.masks, free)
    cover = above.any(0)  # (H, W)
    left = objects.masks & ~cover
    before, after = objects.masks.sum((1, 2)), left.sum((1, 2))
    enough = (after == before) | ((after >= FEWEST_LEFT) & (after >= LEAST_LEFT * before))
    below = _settled(objects._replace(masks=left).take(enough), (after < before)[enough])
    assert below.masks is not None
    image = torch.where(cover, F.pad(other[:, :height, :width], free), image)
    return image, Augmented(
        torch.cat([below.boxes, pasted.boxes]),
        torch.cat([below.labels, pasted.labels]),
        torch.cat([below.masks, above]),
    )


def _as_boxes(boxes: Float64[Tensor, "M 4"], size: tuple[int, int]) -> BoundingBoxes:
    return BoundingBoxes(boxes, format=BoundingBoxFormat.XYXY, canvas_size=size)


def _resized(masks: Bool[Tensor, "M h w"], rows: int, cols: int, *, whole: Bool[Tensor, " M"]) -> Bool[Tensor, "M H W"]:
    """Masks at another size: pixels that are covered by half at least. Of a whole object without any such pixel, which
    is thin or small: those that are covered half as much as the one that is covered most. One at a time, as that takes
    less memory."""
    if masks.shape[1:] == (rows, cols) or not len(masks):
        return masks if len(masks) else masks.new_zeros((0, rows, cols))
    found = []
    for mask, is_whole in zip(masks, whole.tolist(), strict=True):
        cover = resized(mask[None].byte() * 255, rows, cols)
        most = int(cover.max())
        found.append(cover >= (max(1, most // 2) if is_whole and most < 128 else 128))
    return torch.cat(found)


def _settled(objects: Augmented, changed: Bool[Tensor, " M"]) -> Augmented:
    """The objects that have an area, with the boxes of changed ones taken from their masks, if there are masks."""
    if objects.masks is not None:
        there = objects.masks.any(2).any(1)
        objects, changed = objects.take(there), changed[there]
    if objects.masks is not None and changed.any():
        boxes = objects.boxes.clone()
        corners = masks_to_boxes(objects.masks[changed]).to(boxes.dtype)  # the outermost pixels, inclusive
        boxes[changed] = corners + corners.new_tensor([0, 0, 1, 1])
        objects = objects._replace(boxes=boxes)
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    return objects.take((sides >= SMALLEST_SIDE).all(1))
