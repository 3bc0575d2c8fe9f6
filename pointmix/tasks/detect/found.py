"""Detections in the pixels of the image as it was read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from pointmix.data.detect.masks import encode
from pointmix.data.detect.sample import Rle

if TYPE_CHECKING:
    from pointmix.models.detector import Detections


class Found(NamedTuple):
    """The D detections in one image.

    Args:
        boxes: (D, 4) corners x1, y1, x2, y2 in pixels: the first pixel reaches from 0 to 1.
        labels: (D,) classes from 0.
        scores: (D,) in [0, 1], descending.
        masks: of each, in the size of the image; None if the network finds boxes only.
    """

    boxes: Float64[np.ndarray, "D 4"]
    labels: Int64[np.ndarray, " D"]
    scores: Float64[np.ndarray, " D"]
    masks: tuple[Rle, ...] | None = None


def in_pixels(detections: Detections, *, lattice: tuple[int, int], size: tuple[int, int], name: str) -> Found:
    """Detections of a resized image as those of the image itself. Masks are pasted and encoded one at a time.

    Args:
        lattice: rows and columns of the resized image, without padding.
        size: rows and columns of the image.
        name: what messages call it.

    Raises:
        ValueError: a box or a score is not finite.
    """
    boxes, scores = (value.detach().cpu().double().numpy() for value in (detections.boxes, detections.scores))
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(f"the detections in {name} are not finite; are the weights whole?")
    scale = (size[1] / lattice[1], size[0] / lattice[0])
    boxes = boxes * np.array(scale * 2)
    masks = None
    if detections.masks is not None:
        probabilities = detections.masks.detach().cpu().float()
        pairs = zip(probabilities, boxes.tolist(), strict=True)
        masks = tuple(encode(paste_mask(mask, box, size)[None])[0] for mask, box in pairs)
    return Found(boxes, detections.labels.cpu().numpy(), scores, masks)


def paste_mask(
    mask: Float32[Tensor, "m m"], box: list[float], size: tuple[int, int], *, threshold: float = 0.5
) -> UInt8[np.ndarray, "H W"]:
    """The pixels of an image, 0 or 1, that a mask within a box covers: those at whose center the bilinearly sampled
    probability reaches the threshold, with zeros around the box. This is mmdetection's and detectron2's rule.

    Args:
        mask: probabilities on a grid over the box.
        box: corners x1, y1, x2, y2 in pixels; nothing is covered if it is empty or outside.
        size: H, W.
    """
    pixels = np.zeros(size, np.uint8, order="F")  # the order of run lengths
    x1, y1, x2, y2 = box
    left, right = max(math.floor(x1) - 1, 0), min(math.ceil(x2) + 1, size[1])
    top, bottom = max(math.floor(y1) - 1, 0), min(math.ceil(y2) + 1, size[0])
    if x1 >= x2 or y1 >= y2 or left >= right or top >= bottom:
        return pixels
    x = (torch.arange(left, right) + 0.5 - x1) * (2 / (x2 - x1)) - 1  # (w,), -1 to 1 over the box
    y = (torch.arange(top, bottom) + 0.5 - y1) * (2 / (y2 - y1)) - 1  # (h,)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (h, w, 2)
    sampled = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]  # (h, w)
    pixels[top:bottom, left:right] = (sampled >= threshold).numpy()
    return pixels
