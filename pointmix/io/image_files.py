"""Images, masks and depth maps in files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pointmix.io.errors import UnreadableSample
from pointmix.io.formats.npy import read_npy
from pointmix.io.formats.pillow import open_image
from pointmix.io.images import ORIENTATION, as_mask, upright
from pointmix.io.registry import IMAGE_READERS
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix is that of an image format."""
    return Path(path).suffix.lower() in IMAGE_READERS


def decode(open_file: Callable[[], Image.Image], mode: str) -> Image.Image:
    """Decode an image completely, as 'L', 'RGB', 'LA' or 'RGBA' bytes, upright.

    Grayscale wider than a byte: 16-bit images keep their upper byte, as do 32-bit ones with values above 255; floats
    are taken as 0 to 255. Values beyond are clipped.

    Raises:
        UnreadableSample: if the image cannot be decoded to its end, or holds NaN or infinite values.
    """
    try:
        with open_file() as image:
            image = upright(image)
            if image.mode == "F" or image.mode.startswith("I"):  # convert() alone would clip at 255
                image = _as_bytes(np.asarray(image), wide=image.mode.startswith("I;16"))
            return image.convert(mode)  # decodes, and copies, so that the file can be closed
    except UnreadableSample:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableSample("not an image in a format that Pillow knows") from error
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged bytes
        raise UnreadableSample(one_line(error)) from error


def _as_bytes(gray: np.ndarray, *, wide: bool) -> Image.Image:
    if not np.isfinite(gray).all():
        raise ValueError("holds NaN or infinite values, expected finite numbers")
    if wide or (gray.dtype.kind == "i" and gray.max() > 255):
        gray = gray >> 8
    return Image.fromarray(gray.clip(0, 255).round().astype(np.uint8))


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Rows and columns of an upright image, from the head of its file.

    Raises:
        UnreadableSample: if it is no image that Pillow knows, or is missing.
    """
    path = Path(path)
    try:
        with IMAGE_READERS.get(path.suffix.lower(), open_image)(path) as image:
            # Pillow turns TIFF files itself, and knows their upright size when it opens them
            turned = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged bytes
        raise UnreadableSample(one_line(error)) from error


def read_image(path: str | os.PathLike[str], in_chans: int = 3) -> Image.Image:
    """An image file as grayscale (1 channel) or RGB (3 channels) bytes, decoded as in evaluation.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, or holds NaN or infinite values.
    """
    path = regular_file(path, "image file")
    read = IMAGE_READERS.get(path.suffix.lower(), open_image)
    try:
        return decode(lambda: read(path), MODES[in_chans])
    except (UnreadableSample, OSError) as e:
        raise ValueError(f"cannot read image {path}: {one_line(e)}") from e


def read_masked_image(
    path: str | os.PathLike[str], mask: str | os.PathLike[str] | None = None, index: int | None = None
) -> tuple[Image.Image, Bool[Tensor, "H W"] | None]:
    """An image file in RGB, and the mask in another file, if any.

    Raises:
        FileNotFoundError, ValueError: as `read_image` and `read_mask`, and for an index, as an image file holds one.
    """
    if index is not None:
        raise ValueError(f"{path}: an image file holds one image, got index {index}")
    image = read_image(path)
    return image, None if mask is None else read_mask(mask, (image.height, image.width))


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask file of `size` (H, W), the size of the upright image: true where any color is nonzero.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an image, has another size, holds NaN or hides every pixel.
    """
    regular_file(path, "mask file")
    try:
        with open_image(Path(path)) as image:
            image = upright(image)
            if image.mode in ("LA", "RGBA", "PA"):
                image = image.convert("L" if image.mode == "LA" else "RGB")  # opacity is ignored
            mask = np.array(image)
    except Exception as e:  # Pillow's decoders raise many kinds of errors on damaged bytes
        raise ValueError(f"cannot read mask {path}: {one_line(e)}") from e
    try:
        return as_mask(mask if mask.dtype.kind == "f" else mask != 0, size)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def read_depth(path: str | os.PathLike[str]) -> np.ndarray:
    """A depth map (H, W) with the file's own type: a 16-bit or float image, or a .npy array.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is an image of bytes or colors.
    """
    regular_file(path, "depth file")
    try:
        if Path(path).suffix.lower() == ".npy":
            return read_npy(Path(path))
        with open_image(Path(path)) as image:
            depth = np.array(upright(image))
    except Exception as e:
        raise ValueError(f"cannot read depth {path}: {one_line(e)}") from e
    if depth.ndim != 2 or depth.dtype.itemsize < 2:
        kind = f"{'x'.join(map(str, depth.shape))} {depth.dtype}"
        raise ValueError(f"{path}: expected a depth image of one channel with 16 bits or floats, got {kind}")
    return depth
