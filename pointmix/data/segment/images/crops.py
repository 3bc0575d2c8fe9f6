"""Random crops of labeled images for training."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torchvision import tv_tensors

from pointmix.data.images.crops import Crop, random_crop, resized

TRIES = 10  # random crops before one is taken that a single class covers

Maps = tuple[tv_tensors.Image, tv_tensors.Mask, tv_tensors.Mask | None]
"""Image (C, H, W), label (H, W), and depth (H, W) if there is one: a mask, because it must not be interpolated."""


def varied_crop(
    label: Int64[Tensor, "H W"],
    crop_size: tuple[int, int],
    scale: float,
    *,
    cat_max_ratio: float,
    needed: Bool[Tensor, "H W"] | None = None,
) -> Crop:
    """A random crop in which no class covers more than a fraction of the labeled pixels, if one of `TRIES` is such.

    Args:
        cat_max_ratio: the fraction; 1 takes any crop. mmseg's `cat_max_ratio`: below 1, a crop of one class is refused.
        needed: pixels of which a crop must have one; if no crop has, one is moved to such a pixel.
    """
    size = (label.shape[0], label.shape[1])
    for _ in range(TRIES):
        crop = random_crop(size, crop_size, scale)
        if needed is not None and not crop.of(needed).any():
            continue
        if cat_max_ratio == 1 or is_varied(crop.of(label), cat_max_ratio):
            return crop
    if needed is not None and not crop.of(needed).any():
        pixels = needed.nonzero()
        row, col = pixels[int(torch.randint(len(pixels), ()))].tolist()
        top = min(max(row - crop.height // 2, 0), size[0] - crop.height)
        left = min(max(col - crop.width // 2, 0), size[1] - crop.width)
        crop = crop._replace(top=top, left=left)
    return crop


def is_varied(label: Int64[Tensor, "H W"], cat_max_ratio: float) -> bool:
    """Whether there are two classes, and each covers less than a fraction of the labeled pixels."""
    counts = torch.bincount(label[label >= 0])
    return int((counts > 0).sum()) > 1 and int(counts.max()) < cat_max_ratio * int(counts.sum())


def cut(maps: Maps, crop: Crop) -> Maps:
    """Crop and resize: the image bilinear with antialiasing, label and depth to the nearest pixel."""
    image, label, depth = maps
    return (
        tv_tensors.Image(resized(crop.of(image), crop.rows, crop.cols)),
        tv_tensors.Mask(resized(crop.of(label), crop.rows, crop.cols, nearest=True)),
        None if depth is None else tv_tensors.Mask(resized(crop.of(depth), crop.rows, crop.cols, nearest=True)),
    )
