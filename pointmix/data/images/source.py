"""A source: labeled images that can be read in any order, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int
from PIL import Image, UnidentifiedImageError

from pointmix.io.images import upright
from pointmix.utils.messages import one_line

MODES = {1: "L", 3: "RGB"}  # channels -> the form that Pillow converts to
MASKED_MODES = {1: "LA", 3: "RGBA"}  # the same with a mask


@dataclass(frozen=True)
class Source:
    """Labeled images.

    Args:
        classes: names, in the order of the labels.
        targets: (N,) int64 labels, known without reading an image.
        read: index -> Pillow image, perhaps not decoded yet; may raise anything on a damaged file.
        name: index -> what to call the image in messages, a path where there is one.
    """

    classes: list[str]
    targets: Int[np.ndarray, " N"]
    read: Callable[[int], Image.Image]
    name: Callable[[int], str]


class UnreadableImage(ValueError):
    """A missing, damaged or empty image; the message is the reason alone, in one line."""


class BadMask(UnreadableImage):
    """A damaged mask, or one that does not fit its image, which is never passed over; the message names the file."""


def decode(source: Source, index: int, mode: str) -> Image.Image:
    """Read one image completely, as 'L' or 'RGB' bytes, or with its mask as 'LA' or 'RGBA', upright.

    Gray values wider than a byte: 16-bit files keep their upper byte, 32-bit files too when they hold more than 255,
    and floats count as 0 to 255. What lies beyond is cut.

    Raises:
        UnreadableImage: when the file cannot be decoded to its end, or holds NaN or infinite values.
    """
    try:
        with source.read(index) as image:
            image = upright(image)
            if image.mode == "F" or image.mode.startswith("I"):  # convert() alone would cut all at 255
                image = _as_bytes(np.asarray(image), wide=image.mode.startswith("I;16"))
            return image.convert(mode)  # decodes, and copies, so that the file can be closed
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("holds no image that Pillow knows") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        raise UnreadableImage(one_line(error)) from error


def _as_bytes(gray: np.ndarray, *, wide: bool) -> Image.Image:
    if not np.isfinite(gray).all():
        raise ValueError("holds NaN or infinite values, expected finite numbers")
    if wide or (gray.dtype.kind == "i" and gray.max() > 255):
        gray = gray >> 8
    return Image.fromarray(gray.clip(0, 255).round().astype(np.uint8))


def _from_cache(images: dict[int, np.ndarray | UnreadableImage], index: int) -> Image.Image:
    if isinstance(images[index], UnreadableImage):
        raise images[index]
    return Image.fromarray(images[index])


def cached(source: Source, indices: Int[np.ndarray, " n"], mode: str) -> Source:
    """Decode these images now and keep their bytes in memory, which worker processes share when they are forked."""
    images: dict[int, np.ndarray | UnreadableImage] = {}
    for index in indices.tolist():
        try:
            images[index] = np.asarray(decode(source, index, mode))  # (H, W) or (H, W, C) uint8
        except UnreadableImage as error:
            images[index] = error
    return Source(source.classes, source.targets, partial(_from_cache, images), source.name)
