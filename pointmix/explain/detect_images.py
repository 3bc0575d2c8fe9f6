"""Objects drawn on their image: boxes, masks, classes and scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pointmix.explain.class_colors import Color, class_colors
from pointmix.explain.colors import palette as shades
from pointmix.explain.overlay import legend
from pointmix.utils.messages import one_line

SIDE = 640  # pixels of the longer side of a picture; smaller ones are enlarged to about this by a whole number
FILL = 0.4  # strength of the color inside a mask
LONGEST = 24  # letters of a class name
CROWDED = 30  # objects above which those narrower than their text go without


class Drawn(NamedTuple):
    """M objects of an image, in its pixels.

    Args:
        boxes: (M, 4) corners x1, y1, x2, y2.
        labels: (M,) classes.
        scores: (M,) in [0, 1]; None for the truth.
        masks: (H, W) of each object; they are drawn one at a time and may be decoded as they are asked for.
        crowd: (M,) whether it is a group of objects.
    """

    boxes: Float[np.ndarray, "M 4"]
    labels: Int[np.ndarray, " M"]
    scores: Float[np.ndarray, " M"] | None = None
    masks: Iterable[Bool[np.ndarray, "H W"]] | None = None
    crowd: Bool[np.ndarray, " M"] | None = None


def overlay(
    image: Image.Image, objects: Drawn, classes: Sequence[str], palette: Sequence[Color] | None = None
) -> Image.Image:
    """An image with its objects, and a legend of their classes below.

    Args:
        image: H rows, W columns; a small one is enlarged.
        classes: K names.
        palette: K colors, 0 to 255; None for default colors.
    """
    picture = paint(image, objects, classes, palette, max(1, round(SIDE / max(image.size))))
    if len(classes) == 1 or not len(objects.labels):
        return picture
    below = legend(picture.width, np.asarray(objects.labels), classes, class_colors(len(classes), palette))
    sheet = Image.new("RGB", (picture.width, picture.height + below.height), "white")
    sheet.paste(picture, (0, 0))
    sheet.paste(below, (0, picture.height))
    return sheet


def paint(
    image: Image.Image, objects: Drawn, classes: Sequence[str], palette: Sequence[Color] | None, scale: float
) -> Image.Image:
    """An image in another size with the outlines of its objects, their masks as translucent colors, and as many of
    their names and scores as do not cover each other, the best scores first.

    A color is a class or, if there is only one class, an object.

    Args:
        scale: pixels of the result for one of the image.
    """
    size = tuple(max(1, round(side * scale)) for side in image.size)
    smooth = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    picture = image.convert("RGB").resize(size, smooth)  # type: ignore[arg-type]
    colors = _colors(objects.labels, len(classes), palette)
    line = max(2, round(max(size) / 400))
    for color, mask in zip(colors, () if objects.masks is None else objects.masks, strict=False):
        _paint_mask(picture, mask, color, scale, line)
    draw = ImageDraw.Draw(picture)
    boxes = [_pixels(box * scale, picture) for box in np.asarray(objects.boxes, dtype=np.float64)]
    for color, box in zip(colors, boxes, strict=True):
        draw.rectangle(box, outline=tuple(color.tolist()), width=line)
    _write_texts(draw, picture, boxes, _texts(objects, classes), colors)
    return picture


def _colors(labels: Int[np.ndarray, " M"], classes: int, palette: Sequence[Color] | None) -> UInt8[np.ndarray, "M 3"]:
    """The color of each object."""
    if classes == 1 and palette is None:
        bright = (255 * shades()[:24]).round().astype(np.uint8)
        return bright[np.arange(len(labels)) % len(bright)]
    return class_colors(classes, palette)[labels]


def _pixels(box: Float[np.ndarray, "4"], picture: Image.Image) -> tuple[int, int, int, int]:
    """The first and last columns and rows of a box, within the picture."""
    x1, y1, x2, y2 = (float(v) for v in np.nan_to_num(box))
    left, top = (int(np.clip(round(v), 0, end - 1)) for v, end in zip((x1, y1), picture.size, strict=True))
    right, bottom = (int(np.clip(round(v) - 1, 0, end - 1)) for v, end in zip((x2, y2), picture.size, strict=True))
    return left, top, max(left, right), max(top, bottom)


def _paint_mask(
    picture: Image.Image, mask: Bool[np.ndarray, "H W"], color: UInt8[np.ndarray, "3"], scale: float, line: int
) -> None:
    """Fill a mask with a translucent color and draw its outline."""
    mask = np.asarray(mask, dtype=bool)
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    at = round(left * scale), round(top * scale)
    size = max(1, round(right * scale) - at[0]), max(1, round(bottom * scale) - at[1])
    shape = Image.fromarray(255 * mask[top:bottom, left:right].astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    framed = Image.new("L", (size[0] + 2 * line, size[1] + 2 * line))  # so that the outline follows the mask's edge
    framed.paste(shape, (line, line))
    inside = framed.filter(ImageFilter.MinFilter(2 * line + 1)).crop((line, line, line + size[0], line + size[1]))
    strength = Image.fromarray(np.where(np.asarray(inside) > 0, round(255 * FILL), np.asarray(shape)).astype(np.uint8))
    picture.paste(tuple(color.tolist()), at, strength)


def _texts(objects: Drawn, classes: Sequence[str]) -> list[str]:
    """Name and score of each object; the score alone if there is only one class."""
    scores = repeat(None) if objects.scores is None else objects.scores
    crowd = repeat(False) if objects.crowd is None else objects.crowd
    texts = []
    for label, score, group, _ in zip(objects.labels, scores, crowd, objects.boxes, strict=False):
        name = one_line(classes[label])
        name = name if len(name) <= LONGEST else name[: LONGEST - 2] + ".."
        words = [*([] if len(classes) == 1 else [name]), *([] if score is None else [f"{score:.2f}"])]
        texts.append(" ".join([*words, *(["(crowd)"] if group else [])]))
    return texts


def _write_texts(
    draw: ImageDraw.ImageDraw,
    picture: Image.Image,
    boxes: Sequence[tuple[int, int, int, int]],
    texts: Sequence[str],
    colors: UInt8[np.ndarray, "M 3"],
) -> None:
    """Write each text above its box, or inside it at the top, or below; leave it out where other texts are."""
    size = min(max(max(picture.size) // 48, 13), 40)
    font, taken = ImageFont.load_default(size), np.zeros((picture.height, picture.width), dtype=bool)
    for (left, top, right, bottom), text, color in zip(boxes, texts, colors, strict=True):
        width, height = int(font.getlength(text)) + size // 2, int(1.2 * size)
        if not text or width > picture.width or (len(boxes) > CROWDED and width > right - left + 1):
            continue
        x = min(left, picture.width - width)
        for y in (top - height, top, bottom + 1):
            if y < 0 or y + height > picture.height or taken[y : y + height, x : x + width].any():
                continue
            taken[y : y + height, x : x + width] = True
            draw.rectangle((x, y, x + width - 1, y + height - 1), fill=tuple(color.tolist()))
            light = color @ (0.299, 0.587, 0.114) > 140
            ink = (0, 0, 0) if light else (255, 255, 255)
            draw.text((x + size // 4, y + height / 2), text, fill=ink, font=font, anchor="lm")
            break
