"""Parts of images, resized."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


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
