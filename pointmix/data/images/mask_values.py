"""The values of mask files, as they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.io.formats.pillow import open_image
from pointmix.io.images import upright, wrong_size
from pointmix.utils.messages import one_line

FACTORS = {"L;2": 85, "L;4": 17}  # Pillow's layouts of 2 and 4 bits a pixel
LOSSY = ("JPEG", "WEBP")  # formats that change values


def read_values(path: Path, size: tuple[int, int], *, colors: bool, hint: str = "") -> np.ndarray:
    """The values of a mask file for an image of `size` (rows, columns), turned upright by its EXIF orientation as the
    image is: int64 (H, W) as stored, indices of an image with palette; or with `colors` its RGB colors, uint8
    (H, W, 3).

    Args:
        hint: what else to say of a mask with several channels where one is expected.

    Raises:
        UnreadableSample: if it cannot be decoded.
        BadMask: if it has another size, or what it holds cannot be labels.
    """
    try:
        with open_image(path) as image:
            mode, kind, factor = image.mode, image.format, _factor(image)
            image = upright(image)
            values = np.array(image.convert("RGB") if colors else image)  # decodes; mode P gives indices
    except UnidentifiedImageError as e:
        raise UnreadableSample(f"mask {path} is not an image in a format that Pillow knows") from e
    except Exception as e:  # Pillow's decoders raise many kinds of errors on damaged bytes
        raise UnreadableSample(f"cannot read mask {path}: {one_line(e)}") from e
    if kind in LOSSY:
        raise BadMask(f"mask {path} is a {kind} file, which may change labels; expected PNG")
    if values.shape[:2] != size:
        raise BadMask(f"mask {path} {wrong_size(values.shape[:2], size)}")
    if not colors and values.ndim != 2:
        raise BadMask(f"mask {path} is {mode}, expected one channel of labels{hint}")
    if values.dtype.kind == "f":
        raise BadMask(f"mask {path} holds floats, expected whole numbers")
    if not colors and factor is None:
        raise BadMask(f"mask {path} stores white as 0, expected labels as they are")
    return values if colors else values.astype(np.int64) // (factor or 1)


def _factor(image: Image.Image) -> int | None:
    """What Pillow multiplies gray values of less than a byte by, to fill the range of a byte; None where it inverts
    them, for the TIFF files in which white is 0."""
    tiles = getattr(image, "tile", None)
    stored = tiles[0].args if tiles else ""
    layout = str(stored[0] if isinstance(stored, tuple) and stored else stored)
    return None if layout.startswith(("1;", "L;")) and "I" in layout else FACTORS.get(layout, 1)
