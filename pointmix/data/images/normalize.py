"""Images as bytes, which is what workers send, and the float32 images that come of them on the device of a network.

Random erasing puts noise where bytes were. It is drawn by the worker, from the numbers of its image, and travels beside
the bytes for the erased rectangle alone: at most a third of an image, where an image is erased at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.transforms.functional import pil_to_tensor

from pointmix.data.images.partial import hide


class ByteImage(NamedTuple):
    """An image as it leaves a transform.

    Args:
        pixels: (C, H, W).
        corner: row and column where the erased rectangle begins.
        noise: (C, h, w) what it is filled with, normalized; None where nothing is erased.
        mask: (H, W) the visible pixels; None for all.
    """

    pixels: UInt8[Tensor, "C H W"]
    corner: tuple[int, int] = (0, 0)
    noise: Float[Tensor, "C h w"] | None = None
    mask: Bool[Tensor, "H W"] | None = None


def to_bytes(image: Image.Image) -> ByteImage:
    """The values of a gray or RGB image."""
    return ByteImage(pil_to_tensor(image).contiguous())  # (H, W, C) in Pillow


class Erase:
    """timm's random erasing, of which the image keeps the rectangle and what it is filled with."""

    def __init__(self, *, probability: float, mode: str) -> None:
        self.erase = RandomErasing(probability, mode=mode, device="cpu")

    def __call__(self, image: ByteImage) -> ByteImage:
        told = self.erase(_Written(image.pixels.shape))
        return image._replace(corner=told.corner, noise=told.noise)


class _Written:
    """Stands for a normalized image in timm's random erasing, and keeps what is written to one rectangle of it."""

    dtype = torch.float32

    def __init__(self, shape: torch.Size) -> None:
        self.shape, self.corner, self.noise = shape, (0, 0), None

    def size(self) -> torch.Size:
        return self.shape

    def __setitem__(self, where: tuple[slice, slice, slice], values: Float[Tensor, "C _ _"]) -> None:
        _, rows, cols = where
        self.corner = rows.start, cols.start
        self.noise = values.expand(-1, rows.stop - rows.start, cols.stop - cols.start)  # (C, h, w)


@dataclass(frozen=True)
class ByteImages:
    """A batch of images on its way to the device, where `to` makes float32 images of it.

    Args:
        pixels: (B, C, H, W).
        mean, std: of every channel, of values in [0, 1].
        boxes: image, top, left, height and width of each erased rectangle.
        noise: what they are filled with, one after the other, each (C, h, w), normalized.
        mask: (B, H, W) the visible pixels; None for all.
    """

    pixels: UInt8[Tensor, "B C H W"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    boxes: list[tuple[int, int, int, int, int]]
    noise: Float[Tensor, " n"]
    mask: Bool[Tensor, "B H W"] | None

    @property
    def nbytes(self) -> int:
        """What is sent to the device, in bytes."""
        return self.pixels.nbytes + self.noise.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def pin_memory(self) -> ByteImages:
        """The same in memory from which a GPU copies by itself; torch's loader asks for it."""
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
    """Images of one size as a batch: all have a mask, or none; a worker joins them in memory that all processes share.

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


@lru_cache(maxsize=16)  # else every batch would send them
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
    """Factor and summand that take bytes to (byte / 255 - mean) / std, rounded once."""
    exact = [torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std)]  # (C, 1, 1)
    scale, shift = 1 / (255 * exact[1]), -exact[0] / exact[1]
    return scale.float().to(device), shift.float().to(device)
