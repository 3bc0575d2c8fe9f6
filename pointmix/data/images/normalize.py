"""Images as bytes, as workers send them, and their conversion to normalized float32 on the device.

The noise of random erasing is not bytes. The worker draws it, seeded with its image, and sends it separately, for the
erased rectangle only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate


def hide(images: Float[Tensor, "*B C H W"], masks: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B C+1 H W"]:
    """The images with their masks as the last channel, hidden pixels 0."""
    masks = masks.unsqueeze(-3)  # (*B, 1, H, W)
    return torch.cat([images * masks, masks.to(images.dtype)], dim=-3)


class ByteImage(NamedTuple):
    """The output of a transform.

    Args:
        pixels: (C, H, W).
        corner: first row and column of the erased rectangle.
        noise: (C, h, w) its new content, normalized; None if nothing is erased.
        mask: (H, W), true for visible pixels; None for all.
    """

    pixels: UInt8[Tensor, "C H W"]
    corner: tuple[int, int] = (0, 0)
    noise: Float[Tensor, "C h w"] | None = None
    mask: Bool[Tensor, "H W"] | None = None


def to_bytes(image: Image.Image) -> ByteImage:
    """A grayscale or RGB image as a tensor."""
    from torchvision.transforms.functional import pil_to_tensor  # takes seconds to import

    return ByteImage(pil_to_tensor(image).contiguous())  # (H, W, C) in Pillow


class Erase:
    """timm's random erasing, recorded as a rectangle and its new content."""

    def __init__(self, *, probability: float, mode: str) -> None:
        from timm.data.random_erasing import RandomErasing  # takes seconds to import

        self.erase = RandomErasing(probability, mode=mode, device="cpu")

    def __call__(self, image: ByteImage) -> ByteImage:
        record = self.erase(_ErasedRectangle(image.pixels.shape))
        return image._replace(corner=record.corner, noise=record.noise)


class _ErasedRectangle:
    """Takes the place of a normalized image in timm's random erasing, and records the assignment to a rectangle."""

    dtype = torch.float32

    def __init__(self, shape: torch.Size) -> None:
        self.shape, self.corner = shape, (0, 0)
        self.noise: Float[Tensor, "C h w"] | None = None

    def size(self) -> torch.Size:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], values: Float[Tensor, "C _ _"]) -> None:
        _, rows, cols = where
        self.corner = rows.start, cols.start
        self.noise = values.expand(-1, rows.stop - rows.start, cols.stop - cols.start)  # (C, h, w)


@dataclass(frozen=True)
class ByteImages:
    """A batch of images as bytes; `to` makes normalized float32 images of it.

    Args:
        pixels: (B, C, H, W).
        mean, std: of every channel, of values in [0, 1].
        boxes: image, top, left, height and width of each erased rectangle.
        noise: the new content of all rectangles, each (C, h, w) and normalized, flattened and concatenated.
        mask: (B, H, W), true for visible pixels; None for all.
    """

    pixels: UInt8[Tensor, "B C H W"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    boxes: list[tuple[int, int, int, int, int]]
    noise: Float[Tensor, " n"]
    mask: Bool[Tensor, "B H W"] | None

    @property
    def nbytes(self) -> int:
        """Number of bytes sent to the device."""
        return self.pixels.nbytes + self.noise.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def pin_memory(self) -> ByteImages:
        """A copy in page-locked memory; called by torch's DataLoader."""
        mask = None if self.mask is None else self.mask.pin_memory()
        return replace(self, pixels=self.pixels.pin_memory(), noise=self.noise.pin_memory(), mask=mask)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Float[Tensor, "B C H W"]:
        """The images on a device, float32, normalized and erased; with masks (B, C+1, H, W), see `hide`."""
        scale, shift = _scale_and_shift(self.mean, self.std, torch.device(device))
        images = torch.addcmul(shift, self.pixels.to(device, non_blocking=non_blocking), scale)  # float32
        sizes = [self.pixels.shape[1] * height * width for *_, height, width in self.boxes]
        noise = self.noise.to(device, non_blocking=non_blocking).split(sizes)
        for (i, top, left, height, width), values in zip(self.boxes, noise, strict=True):
            images[i, :, top : top + height, left : left + width] = values.view(self.pixels.shape[1], height, width)
        return images if self.mask is None else hide(images, self.mask.to(device, non_blocking=non_blocking))


def join_bytes(images: list[ByteImage], *, mean: tuple[float, ...], std: tuple[float, ...]) -> ByteImages:
    """A batch of images of one size, all or none of them with a mask; in a worker, in shared memory.

    Args:
        mean, std: of every channel, of values in [0, 1].
    """
    boxes = [(i, *image.corner, *image.noise.shape[1:]) for i, image in enumerate(images) if image.noise is not None]
    noise = [image.noise.flatten() for image in images if image.noise is not None]
    masked = images[0].mask is not None
    return ByteImages(
        pixels=default_collate([image.pixels for image in images]),
        mean=mean,
        std=std,
        boxes=boxes,
        noise=torch.cat(noise) if noise else torch.empty(0),
        mask=default_collate([image.mask for image in images]) if masked else None,
    )


@lru_cache(maxsize=16)  # avoids a transfer for every batch
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
    """Scale and shift with byte * scale + shift = (byte / 255 - mean) / std, computed in float64 and rounded once."""
    exact = [torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std)]  # (C, 1, 1)
    scale, shift = 1 / (255 * exact[1]), -exact[0] / exact[1]
    return scale.float().to(device), shift.float().to(device)
