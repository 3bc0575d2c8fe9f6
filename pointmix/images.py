"""Anything that is an image or a mask, as a channels-last tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor


def as_channels_last(
    image: Tensor | np.ndarray | Image.Image,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Float[Tensor, "H W C"]:
    """A tensor (C, H, W) or (H, W), an array (H, W, C) or (H, W), or a PIL image as floats (H, W, C).

    Unsigned integers are divided by their largest value, floats are kept; then (value - mean) / std per channel.

    Raises:
        ValueError: on another shape or dtype, an empty image, or as many means as there are not channels.
    """
    if isinstance(image, Image.Image):
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
            image = image.convert("RGBA" if image.mode == "PA" else "RGB")
        image = np.array(image)
    if isinstance(image, np.ndarray):
        image = image if image.ndim == 3 else image[..., None]
        image = image.astype(image.dtype.newbyteorder("="), copy=False)  # tensors know this machine's order only
        values = torch.from_numpy(np.ascontiguousarray(image))  # (H, W, C)
    elif isinstance(image, Tensor):
        values = image[None] if image.ndim == 2 else image
        values = values.movedim(0, -1)  # (C, H, W) -> (H, W, C)
    else:
        raise ValueError(f"expected a tensor, an array or a PIL image, got {type(image).__name__}")
    if values.ndim != 3 or values.numel() == 0:
        raise ValueError(f"expected an image with two sides and channels, got shape {tuple(image.shape)}")
    return as_floats(values, mean=mean, std=std)


def as_floats(
    values: Tensor, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Float[Tensor, "*N C"]:
    """Pixel values as floats: unsigned integers over their largest value; then (value - mean) / std per channel.

    Raises:
        ValueError: on another dtype, or as many means as there are not channels.
    """
    if values.dtype == torch.bool:
        values = values.float()
    elif values.dtype in (torch.uint8, torch.uint16):
        values = values.float() / torch.iinfo(values.dtype).max
    elif not values.is_floating_point():
        raise ValueError(f"expected pixels as bytes, 16-bit integers or floats, got {values.dtype}")
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and len(value) not in (1, values.shape[-1]):
            raise ValueError(f"{name} has {len(value)} values for {values.shape[-1]} channels")
    values = values if mean is None else values - values.new_tensor(mean)
    return values if std is None else values / values.new_tensor(std)


def as_mask(mask: Tensor | np.ndarray | Image.Image, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask of `size` (H, W), true where it is nonzero (in any channel).

    Raises:
        ValueError: if the size differs, the mask holds NaN, or no pixel is visible.
    """
    if isinstance(mask, np.ndarray) and mask.dtype.kind in "iu":
        mask = mask != 0
    if isinstance(mask, Tensor) and not mask.is_floating_point():
        mask = mask.bool()
    values = as_channels_last(mask)
    if tuple(values.shape[:2]) != size:
        shape = "x".join(map(str, values.shape[:2]))
        raise ValueError(f"mask is {shape}, the image is {size[0]}x{size[1]} (rows x columns)")
    if values.isnan().any():
        raise ValueError("mask holds NaN, expected zero (hidden) or nonzero (visible)")
    visible = (values != 0).any(-1)
    if not visible.any():
        raise ValueError("mask hides every pixel, expected at least one visible")
    return visible
