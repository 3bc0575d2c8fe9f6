"""Labels of pixels: pictures of predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pointmix.explain.class_colors import Color, add_legend, class_colors
from pointmix.explain.images import enlarge, hatched, hide_axes, set_titles
from pointmix.utils.atomic import replacing

WIDTH = 3.4  # inches of a panel
WRONG = (0.85, 0.05, 0.1)

Picture = Float[np.ndarray, "H W 3"]  # in [0, 1], NaN where pixels are hidden
LabelMap = Int[np.ndarray, "H W"]  # classes, negative where there is no label


def draw_image_predictions(
    path: str | Path,
    images: Sequence[Picture],
    labels: Sequence[LabelMap],
    predictions: Sequence[LabelMap],
    classes: Sequence[str],
    palette: Sequence[Color] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Write a PNG with a row for each image: the image, the truth, the prediction, and the errors in red. Below is a
    legend of the classes that occur. Pixels without a label, and hidden ones, are hatched gray.

    Args:
        path: the PNG, overwritten if it exists.
        images, labels, predictions: of each image, in one size.
        classes: K names.
        palette: K colors, 0 to 255; None for default colors.
        names: of the images.

    Raises:
        ValueError: there is no image, or sizes differ.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    if not images:
        raise ValueError("draw_image_predictions: no image to draw")
    colors = class_colors(len(classes), palette)
    tall = [WIDTH * min(len(image) / image.shape[1], 2) for image in images]
    size = 4 * WIDTH, sum(tall) + 0.2 * len(tall) + 0.3
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(len(images), 4, squeeze=False, height_ratios=tall)
    for row, (image, label, predicted) in enumerate(zip(images, labels, predictions, strict=True)):
        if not image.shape[:2] == label.shape == predicted.shape:
            sizes = f"{image.shape[:2]}, {label.shape}, {predicted.shape}"
            raise ValueError(f"draw_image_predictions: image, truth and prediction of one size expected, got {sizes}")
        panels = [image, painted(label, colors), painted(predicted, colors), errors(image, label, predicted)]
        for ax, panel in zip(axes[row], panels, strict=True):
            ax.imshow(hatched(enlarge(panel)), interpolation="antialiased")
        counted = (label >= 0) & (predicted >= 0)
        right = f"{(label == predicted)[counted].mean():.1%} right" if counted.any() else "no labels"
        axes[row, 3].set_xlabel(right, fontsize=9)
        axes[row, 0].set_xlabel(names[row] if names else "", fontsize=9, parse_math=False)
    set_titles(axes[0], ["image", "truth", "prediction", "errors"])
    hide_axes(axes)
    without = [("no label", "0.82")] if any((label < 0).any() for label in [*labels, *predictions]) else []
    lines = add_legend(figure, [*labels, *predictions], classes, colors, more=without)
    figure.set_figheight(size[1] + 0.22 * lines)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def painted(label: LabelMap, colors: np.ndarray) -> Picture:
    """The colors of labels, NaN where there is none."""
    return np.where((label < 0)[..., None], np.nan, colors[label.clip(min=0)] / 255)


def errors(image: Picture, label: LabelMap, predicted: LabelMap) -> Picture:
    """Wrong pixels in red over the pale grays of the image; NaN where there is no label."""
    gray = 0.45 + 0.55 * image.mean(axis=2, keepdims=True).repeat(3, 2)
    shown = np.where((label != predicted)[..., None], 0.8 * np.array(WRONG) + 0.2 * gray, gray)
    return np.where(((label < 0) | (predicted < 0))[..., None], np.nan, shown)
