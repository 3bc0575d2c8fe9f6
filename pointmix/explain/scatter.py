"""Sheets of three-dimensional views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pointmix.utils.atomic import replacing


@dataclass(frozen=True)
class Panel:
    """One view: points with a color each, and marks (centers or anchors) with theirs."""

    title: str
    note: str
    pos: Float[np.ndarray, "n 3"]
    color: Float[np.ndarray, "n 3"]
    marks: Float[np.ndarray, "m 3"]
    mark_color: Float[np.ndarray, "m 3"]


def write_png(path: str | Path, rows: Sequence[Sequence[Panel]], titles: Sequence[str]) -> None:
    """Rows of panels with equal axes, each title below the first of each row."""
    from matplotlib.figure import Figure  # takes half a second to import

    columns = len(rows[0])
    height = 2.9 * len(rows) + 0.65
    figure = Figure(figsize=(2.6 * columns, height), dpi=130, facecolor="white")
    figure.subplots_adjust(left=0, right=1, bottom=0.25 / height, top=1 - 0.4 / height, wspace=0, hspace=0.1)
    axes = figure.subplots(len(rows), columns, squeeze=False, subplot_kw=dict(projection="3d", computed_zorder=False))
    for i, (row, title) in enumerate(zip(rows, titles, strict=True)):
        low, high = row[0].pos.min(0), row[0].pos.max(0)
        middle, half = (low + high) / 2, max((high - low).max() / 2, 1e-6)
        for j, (ax, panel) in enumerate(zip(axes[i], row, strict=True)):
            ax.scatter(*panel.pos.T, s=_size(len(panel.pos)), c=panel.color, depthshade=False, linewidths=0)
            if len(panel.marks):
                size = np.clip(900 / len(panel.marks), 1.5, 40)
                ax.scatter(
                    *panel.marks.T, s=size, c=panel.mark_color, depthshade=False, edgecolors="black",
                    linewidths=np.sqrt(size) / 8, zorder=9,
                )  # fmt: skip
            for place, axis in zip(middle, "xyz", strict=True):
                getattr(ax, f"set_{axis}lim")(place - half, place + half)
            ax.set_box_aspect((1, 1, 1), zoom=1.35)
            ax.view_init(elev=22, azim=-65)
            ax.set_axis_off()
            below = f"{title}, {panel.note}" if j == 0 and title else panel.note
            ax.text2D(0.5, -0.03, below, transform=ax.transAxes, ha="center", va="bottom", fontsize=8, parse_math=False)
            if i == 0:
                ax.set_title(panel.title, fontsize=9, fontweight="bold")
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _size(points: int) -> float:
    """Of a marker in square points, such that the panel looks filled."""
    return float(np.clip(16000 / points, 0.35, 30))
