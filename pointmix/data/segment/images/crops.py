"""Random crops of labeled images for training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

TRIES = 10  # random crops before one is taken that a single class covers

Maps = tuple[tv_tensors.Image, tv_tensors.Mask, tv_tensors.Mask | None]
"""Image (C, H, W), label (H, W), and depth (H, W) if there is one: a mask, because it must not be interpolated."""


class Crop(NamedTuple):
    """A box of the image, and the number of rows and columns it is resized to."""

    top: int
    left: int
    height: int
    width: int
    rows: int
    cols: int

    def of(self, values: Tensor) -> Tensor:
        """The box of values (..., H, W)."""
        return values[..., self.top : self.top + self.height, self.left : self.left + self.width]


def random_crop(size: tuple[int, int], crop_size: tuple[int, int], scale: float) -> Crop:
    """A crop at a random place of the image scaled by `scale`, smaller than `crop_size` where the scaled image is.

    The box is cut first and then scaled, so the cost does not depend on the image's size; the scale of a side is
    rounded to whole pixels of the box.
    """
    extent = []
    for side, wanted in zip(size, crop_size, strict=True):
        if wanted <= side * scale:
            extent.append((min(side, max(1, round(wanted / scale))), wanted))
        else:
            extent.append((side, max(1, round(side * scale))))
    (height, rows), (width, cols) = extent
    top, left = (int(torch.randint(free + 1, ())) for free in (size[0] - height, size[1] - width))
    return Crop(top, left, height, width, rows, cols)


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


def resized(values: Tensor, rows: int, cols: int, *, nearest: bool = False) -> Tensor:
    """Values (..., H, W) at another size, where the centers of pixels correspond.

    torchvision's own resizing of masks takes the pixel at or above and to the left, which would shift labels by up to
    half a pixel against the image.
    """
    values = values.as_subclass(Tensor)
    if values.shape[-2:] == (rows, cols):
        return values
    if not nearest:
        return F.resize(values, [rows, cols], InterpolationMode.BILINEAR, antialias=True)
    return F.resize(values[None], [rows, cols], InterpolationMode.NEAREST_EXACT)[0]
