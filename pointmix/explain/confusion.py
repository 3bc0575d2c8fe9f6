"""A plot of the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointmix.utils.atomic import replacing


def draw_confusion(path: str | Path, confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Write a PNG of a confusion matrix: a row for each true class, a column for each predicted class.

    Colors are fractions of the row; numbers are counts, left out for more than 40 classes.

    Args:
        path: the PNG, overwritten if it exists.
        confusion: (K, K) counts.
        classes: K names.

    Raises:
        ValueError: if the matrix is not K by K.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    counts = np.asarray(confusion, dtype=float)
    number = len(classes)
    if counts.shape != (number, number):
        raise ValueError(f"draw_confusion: expected {number} x {number} counts for {number} names, got {counts.shape}")
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(4.0 + 0.42 * number, 20.0)
    font = float(np.clip(110 / number, 4, 10))
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(number), classes, rotation=90, fontsize=font, parse_math=False)
    ax.set_yticks(range(number), classes, fontsize=font, parse_math=False)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.set_title(f"correct: {counts.trace():.0f} of {counts.sum():.0f}", fontsize=10)
    ax.tick_params(length=0)
    for row, column in np.argwhere(counts > 0) if number <= 40 else ():
        color = "white" if fractions[row, column] > 0.5 else "black"
        ax.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=font, color=color)
    with replacing(path) as file:
        figure.savefig(file, format="png")
