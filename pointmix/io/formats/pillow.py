"""Images in the formats that Pillow decodes."""

from __future__ import annotations

import threading
from io import BufferedIOBase
from pathlib import Path

from PIL import Image

from pointmix.io.registry import register_image_reader
from pointmix.utils.limits import check_limit, regular_file

DECODERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # the content of a file decides among these alone
_PILLOW_LIMIT_LOCK = threading.Lock()


@register_image_reader(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
def open_image(file: str | Path | BufferedIOBase) -> Image.Image:
    """An image, not decoded yet, whose header asks for no more pixels than the limit IMAGE_PIXELS.

    Raises:
        FileNotFoundError: if there is no such file.
        UnidentifiedImageError: an OSError, if it is in none of the formats `DECODERS`.
        ValueError: if it is not a regular file, or is too large.
    """
    if isinstance(file, str | Path):
        file = regular_file(file, "image file")
    with _PILLOW_LIMIT_LOCK:
        # Pillow's own limit would warn, or refuse what is allowed here
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=DECODERS)  # type: ignore[arg-type]  # IO[bytes] is narrower than needed
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit
    try:
        check_limit("IMAGE_PIXELS", image.width * image.height, f"the image of {image.width} x {image.height}")
    except ValueError:
        image.close()
        raise
    return image
