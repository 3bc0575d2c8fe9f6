"""Random changes of colors in the ranges of mmseg's `PhotoMetricDistortion`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.v2 import functional as F

BRIGHTNESS = 32 / 255  # largest change, of values in [0, 1]
FACTOR = (0.5, 1.5)  # of contrast and of saturation
HUE = 0.1  # largest change, of a full turn: 18 of OpenCV's 180


class PhotometricDistortion:
    """Brightness (added), contrast (multiplied), saturation and hue of an image in [0, 1], each changed with
    probability one half; contrast before or after saturation and hue. Gray images keep the last two.

    mmseg scales the saturation of HSV; here colors are blended with gray, as torchvision does. `v2`'s own
    `RandomPhotometricDistort` swaps color channels too, and has smaller ranges of brightness and hue.
    """

    def __call__(self, image: Float[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
        brightness, contrast, saturation, hue, contrast_first = (torch.rand(5) < 0.5).tolist()
        if brightness:
            image = (image + _uniform(-BRIGHTNESS, BRIGHTNESS)).clamp(0, 1)
        if contrast and contrast_first:
            image = F.adjust_brightness(image, _uniform(*FACTOR))  # a product, clipped: mmseg's contrast
        if saturation and len(image) == 3:
            image = F.adjust_saturation(image, _uniform(*FACTOR))
        if hue and len(image) == 3:
            image = F.adjust_hue(image, _uniform(-HUE, HUE))
        if contrast and not contrast_first:
            image = F.adjust_brightness(image, _uniform(*FACTOR))
        return image


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
