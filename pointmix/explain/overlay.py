"""An image with the colors of its labels over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from pointmix.explain.class_colors import shown_classes

SMALLEST = 420  # pixels of the longer side; smaller images are enlarged by a whole number
STRENGTH = 0.6  # of the colors


def overlay(
    image: Image.Image, label: Int[np.ndarray, "H W"], classes: Sequence[str], colors: UInt8[np.ndarray, "K 3"]
) -> Image.Image:
    """The grays of an image under the colors of its labels, pixel by pixel, and a legend of the classes below.

    Args:
        image: of the size of `label`.
        label: classes, negative where there is none: such pixels are pale.
        colors: of each class, 0 to 255.
    """
    gray = image.convert("L").point(lambda value: 64 + 0.75 * value).convert("RGB")
    paint = Image.fromarray(np.concatenate([colors, np.full((1, 3), 255, np.uint8)])[label])
    mixed = Image.blend(gray, paint, STRENGTH)
    if (factor := SMALLEST // max(mixed.size)) > 1:
        mixed = mixed.resize((mixed.width * factor, mixed.height * factor), Image.Resampling.NEAREST)
    below = legend(max(mixed.width, SMALLEST), label, classes, colors)
    sheet = Image.new("RGB", (below.width, mixed.height + below.height), "white")
    sheet.paste(mixed, ((below.width - mixed.width) // 2, 0))
    sheet.paste(below, (0, mixed.height))
    return sheet


def legend(
    width: int,
    label: Int[np.ndarray, "..."],
    classes: Sequence[str],
    colors: UInt8[np.ndarray, "K 3"],
    *,
    size: int | None = None,
) -> Image.Image:
    """A patch of color and a name for each class among labels, in as many lines as they need.

    Args:
        size: of the font, in pixels; None: by the width.
    """
    size = min(max(width // 45, 13), 60) if size is None else size
    font = ImageFont.load_default(size)
    shown, left = shown_classes([label], len(classes))
    entries = [(classes[i], tuple(colors[i].tolist())) for i in shown]
    entries += [(f"and {left} more", (255, 255, 255))] if left else []
    entries += [("no label", (235, 235, 235))] if (label < 0).any() else []
    longest = max((font.getlength(name) for name, _ in entries), default=0)
    step = int(longest + 2.6 * size)
    columns = max(1, (width - size) // step)
    lines = -(-len(entries) // columns)
    strip = Image.new("RGB", (width, int((1.5 * lines + 0.8) * size)), "white")
    draw = ImageDraw.Draw(strip)
    for i, (name, color) in enumerate(entries):
        x, y = size // 2 + i % columns * step, int((0.6 + 1.5 * (i // columns)) * size)
        draw.rectangle((x, y, x + size, y + size), fill=color, outline=(150, 150, 150))
        draw.text((x + 1.4 * size, y + size / 2), name, fill=(20, 20, 20), font=font, anchor="lm")
    return strip
