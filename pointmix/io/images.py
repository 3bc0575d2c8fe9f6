"""Anything that is an image or a mask, as a channels-last tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from pointmix.io.arrays import as_tensor
from pointmix.utils.limits import check_array

if TYPE_CHECKING:
    import h5py

ORIENTATION = ExifTags.Base.Orientation
PART = 16 << 20  # bytes of colors that are looked at together


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
        image = upright(image)
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB"):
            image = image.convert("RGBA" if image.mode == "PA" else "RGB")
        image = np.array(image)
    if isinstance(image, np.ndarray):
        values = as_tensor(image if image.ndim == 3 else image[..., None])  # (H, W, C)
    elif isinstance(image, Tensor):
        check_channels_first(image.shape)
        values = image[None] if image.ndim == 2 else image
        values = values.movedim(0, -1)  # (C, H, W) -> (H, W, C)
    else:
        raise ValueError(f"expected a tensor, an array or a PIL image, got {type(image).__name__}")
    if values.ndim != 3 or values.numel() == 0:
        raise ValueError(f"expected an image with two sides and channels, got shape {tuple(image.shape)}")
    return as_floats(values, mean=mean, std=std)


def check_channels_first(shape: Sequence[int]) -> None:
    """Refuse the shape of an image, or of a batch of them, that has its colors last: images are not 3 or 4 pixels wide
    while they have 32 channels and more."""
    if len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) >= 32:
        raise ValueError(
            f"a tensor {tuple(shape)} looks like H x W x C, expected C x H x W: permute its axes, or give an array"
        )


def as_floats(
    values: Tensor, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Float[Tensor, "*N C"]:
    """Pixel values or other features as floats: bytes and 16-bit unsigned integers over their largest value, floats as
    they are; then (value - mean) / std per channel.

    Raises:
        ValueError: on another dtype, or as many means as there are not channels.
    """
    if values.dtype == torch.bool:
        values = values.float()
    elif values.dtype in (torch.uint8, torch.uint16):
        values = values.float() / torch.iinfo(values.dtype).max
    elif not values.is_floating_point():
        raise ValueError(f"expected bytes, 16-bit integers or floats, got {values.dtype}")
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and len(value) not in (1, values.shape[-1]):
            raise ValueError(f"{name} has {len(value)} values for {values.shape[-1]} channels")
    values = values if mean is None else values - values.new_tensor([float(m) for m in mean])
    return values if std is None else values / values.new_tensor([float(s) for s in std])


def full_color(colors: np.ndarray | h5py.Dataset) -> float:
    """The value that is full color, among values that are known to be colors; divided by it they are in [0, 1].

    Types that are made for colors decide by themselves: 255 for bytes, 65535 for unsigned 16-bit integers. Other
    integers and floats decide by the largest of all values: up to 1 they are in [0, 1], up to 255 bytes, up to 65535
    16-bit values. Floats with a negative value were normalized by somebody and are kept.

    Args:
        colors: of a whole file, so that a dark cloud is not taken for one in other units; read in parts. What is
            damaged is left out.

    Raises:
        ValueError: if the values are in none of these ranges, or more than the limit ARRAY_BYTES must be looked at.
    """
    kind = colors.dtype.newbyteorder("=")
    if kind.kind == "b" or kind in (np.uint8, np.uint16):
        return 1.0 if kind.kind == "b" else float(np.iinfo(kind).max)
    check_array(colors.shape, kind.itemsize, "the array of colors")
    rows = max(1, PART // max(1, math.prod(colors.shape[1:]) * kind.itemsize))
    ends = [_ends(colors, start, min(start + rows, len(colors))) for start in range(0, len(colors), rows)]
    low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
    if kind.kind == "f" and (low < 0 or high <= 1 + 1e-3):  # rounding may leave a little more than 1
        return 1.0
    full = next((float(most) for most in (1, 255, 65535) if 0 <= low and high <= most), None)
    if full is None:
        raise ValueError(f"colors are from {low:g} to {high:g}, expected up to 1, 255 or 65535, none negative")
    return full


def _ends(colors: np.ndarray | h5py.Dataset, start: int, stop: int) -> tuple[float, float]:
    """The smallest and the largest finite value of some rows, and zero."""
    try:
        part = np.asarray(colors[start:stop], dtype=np.float64)
    except OSError:  # a row is damaged, as reading it for its own sake will say; the others count
        if stop - start == 1:
            return 0.0, 0.0
        halves = [_ends(colors, *half) for half in ((start, (start + stop) // 2), ((start + stop) // 2, stop))]
        return min(halves[0][0], halves[1][0]), max(halves[0][1], halves[1][1])
    part = part[np.isfinite(part)]
    return float(part.min(initial=0)), float(part.max(initial=0))


def upright(image: Image.Image) -> Image.Image:
    """The image as viewers show it, turned by its EXIF orientation; itself where it has none that can be read."""
    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return image
    return ImageOps.exif_transpose(image) if turned else image


def as_mask(mask: Tensor | np.ndarray | Image.Image, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask of `size` (H, W), true where it is nonzero (in any channel).

    Raises:
        ValueError: if the size differs, the mask holds NaN, or no pixel is visible.
    """
    if isinstance(mask, np.ndarray) and mask.dtype.kind in "iu":  # of any size, 64 bits too
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
