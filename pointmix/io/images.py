"""Images and masks of any type as channels-last tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from pointmix.io.tensors import ArrayLike, ChannelValues, as_tensor

ORIENTATION = ExifTags.Base.Orientation


def as_channels_last(
    image: ArrayLike | Image.Image,
    *,
    mean: ChannelValues | None = None,
    std: ChannelValues | None = None,
) -> Float[Tensor, "H W C"]:
    """A tensor (C, H, W) or (H, W), an array (H, W, C) or (H, W), or a PIL image as floats (H, W, C).

    Unsigned integers are divided by their largest value, floats are kept; then (value - mean) / std per channel.

    Raises:
        ValueError: on another shape or dtype, an empty image, or if mean or std do not have one value per channel.
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
    """Raise ValueError for an image, or a batch of images, that looks channels-last: 3 or 4 columns with at least 32
    channels and rows."""
    if len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) >= 32:
        raise ValueError(
            f"a tensor {tuple(shape)} looks like H x W x C, expected C x H x W: permute its axes, or give an array"
        )


def check_images(images: Tensor | Sequence[object], masks: Tensor | Sequence[object] | None) -> None:
    """Raise ValueError if a batch of images is empty or a tensor not (B, C, H, W), or if the number of masks differs.

    Arguments: `PointSet.from_images`.
    """
    if isinstance(images, Tensor) and images.ndim != 4:
        raise ValueError(f"from_images: expected a batch (B, C, H, W), got {tuple(images.shape)}")
    if isinstance(images, Tensor):
        check_channels_first(images.shape)
    if len(images) == 0 or (isinstance(images, Tensor) and images.numel() == 0):
        shape = f": {tuple(images.shape)}" if isinstance(images, Tensor) else ""
        raise ValueError(f"from_images: the batch is empty{shape}")
    if masks is not None and len(masks) != len(images):
        raise ValueError(f"from_images: {len(images)} images but {len(masks)} masks")


def as_floats(
    values: Tensor, *, mean: ChannelValues | None = None, std: ChannelValues | None = None
) -> Float[Tensor, "*N C"]:
    """Pixel values or other features as floats: uint8 and uint16 divided by their largest value, floats unchanged; then
    (value - mean) / std per channel.

    Raises:
        ValueError: on another dtype, or if mean or std do not have one value per channel.
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


def upright(image: Image.Image) -> Image.Image:
    """The image rotated by its EXIF orientation, as viewers show it; unchanged if it has none that can be read."""
    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return image
    return ImageOps.exif_transpose(image) if turned else image


def wrong_size(found: Sequence[int], expected: Sequence[int]) -> str:
    """The end of a message that a mask or depth map has another size than its image, both (rows, columns)."""
    shape, size = ("x".join(map(str, sides)) for sides in (found, expected))
    exchanged = tuple(found) == tuple(expected)[::-1]
    hint = "; expected that of the image as it is shown, after its EXIF orientation" if exchanged else ""
    return f"is {shape}, the image is {size} (rows x columns){hint}"


def as_mask(mask: ArrayLike | Image.Image, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask of `size` (H, W), true where it is nonzero (in any channel).

    Raises:
        ValueError: if the size differs, the mask holds NaN, or no pixel is visible.
    """
    if isinstance(mask, np.ndarray) and mask.dtype.kind in "iu":  # of any width, 64 bits too
        mask = mask != 0
    if isinstance(mask, Tensor) and not mask.is_floating_point():
        mask = mask.bool()
    values = as_channels_last(mask)
    if tuple(values.shape[:2]) != size:
        raise ValueError(f"mask {wrong_size(values.shape[:2], size)}")
    if values.isnan().any():
        raise ValueError("mask holds NaN, expected zero (hidden) or nonzero (visible)")
    visible = (values != 0).any(-1)
    if not visible.any():
        raise ValueError("mask hides every pixel, expected at least one visible")
    return visible
