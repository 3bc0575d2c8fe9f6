"""Pictures of detections beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont

from pointmix.explain.class_colors import Color, class_colors
from pointmix.explain.detect_images import Drawn, paint
from pointmix.explain.images import hatched
from pointmix.explain.overlay import legend
from pointmix.utils.atomic import replacing
from pointmix.utils.messages import counted, one_line

PANEL = 512  # pixels of the longer side of a panel
MARGIN = 12  # pixels between panels

Picture = Float[np.ndarray, "H W 3"]  # in [0, 1], NaN where pixels are hidden


def draw_detections(
    path: str | Path,
    images: Sequence[Picture],
    truths: Sequence[Drawn],
    predictions: Sequence[Drawn],
    classes: Sequence[str],
    palette: Sequence[Color] | None = None,
    *,
    names: Sequence[str] | None = None,
    min_score: float = 0.5,
) -> None:
    """Write a PNG with a row for each image: the truth, and the prediction beside it. Below is a legend of the classes
    that occur. Hidden pixels are hatched gray.

    Args:
        path: the PNG, overwritten if it exists.
        images, truths, predictions: of each image.
        classes: K names.
        palette: K colors, 0 to 255; None for default colors.
        names: of the images.
        min_score: predictions below it are left out.

    Raises:
        ValueError: there is no image.
    """
    if not images:
        raise ValueError("draw_detections: no image to draw")
    panels, labels = [], []
    for i, (image, truth, predicted) in enumerate(zip(images, truths, predictions, strict=True)):
        picture = Image.fromarray((255 * hatched(image)).round().astype(np.uint8))
        sure = _at_least(predicted, min_score)
        name = f"{one_line(names[i])}: " if names else ""
        texts = [name + counted(len(truth.labels), "object"), f"{len(sure.labels)} with a score from {min_score:g}"]
        row = [paint(picture, objects, classes, palette, PANEL / max(picture.size)) for objects in (truth, sure)]
        panels.append([_with_caption(panel, text) for panel, text in zip(row, texts, strict=True)])
        labels += [truth.labels, sure.labels]
    with replacing(path) as file:
        _sheet(panels, ["truth", "prediction"], np.concatenate(labels), classes, palette).save(file, format="png")


def _at_least(found: Drawn, score: float) -> Drawn:
    """The objects with this score or a higher one."""
    assert found.scores is not None
    keep = found.scores >= score
    masks = None if found.masks is None else (mask for mask, kept in zip(found.masks, keep, strict=True) if kept)
    return Drawn(found.boxes[keep], found.labels[keep], found.scores[keep], masks)


def _with_caption(panel: Image.Image, text: str) -> Image.Image:
    font = ImageFont.load_default(14)
    while len(text) > 4 and font.getlength(text) > panel.width:
        text = text[:-3] + ".."
    sheet = Image.new("RGB", (panel.width, panel.height + 22), "white")
    sheet.paste(panel, (0, 0))
    ImageDraw.Draw(sheet).text((0, panel.height + 11), text, fill=(60, 60, 60), font=font, anchor="lm")
    return sheet


def _sheet(
    panels: Sequence[Sequence[Image.Image]],
    titles: Sequence[str],
    labels: Int[np.ndarray, " M"],
    classes: Sequence[str],
    palette: Sequence[Color] | None,
) -> Image.Image:
    """Rows of panels under titles, and a legend below."""
    widths = [max(row[column].width for row in panels) for column in range(len(titles))]
    lefts = [MARGIN + sum(widths[:column]) + MARGIN * column for column in range(len(titles))]
    width = sum(widths) + MARGIN * (len(titles) + 1)
    colors = class_colors(len(classes), palette)
    below = [legend(width, labels, classes, colors, size=16)] if len(classes) > 1 and len(labels) else []
    height = 36 + sum(row[0].height + MARGIN for row in panels) + sum(strip.height for strip in below)
    sheet = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(sheet), 36
    for x, title in zip(lefts, titles, strict=True):
        draw.text((x, 18), title, fill=(0, 0, 0), font=ImageFont.load_default(18), anchor="lm")
    for row in panels:
        for x, panel in zip(lefts, row, strict=True):
            sheet.paste(panel, (x, y))
        y += row[0].height + MARGIN
    for strip in below:
        sheet.paste(strip, (0, y))
    return sheet
