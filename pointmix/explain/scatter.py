"""Sheets of three-dimensional views, as a PNG or as a page that can be turned with the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pointmix.explain.blocks import wrapped
from pointmix.utils.atomic import replacing, write_text


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
    """Rows of panels with equal axes; the title of a row is above it."""
    from matplotlib.figure import Figure  # takes half a second to import

    columns = len(rows[0])
    heads = [wrapped(title, 32 * columns) for title in titles]
    lines = max(head.count("\n") + 1 if head else 0 for head in heads)
    gap = 0.35 + 0.17 * lines  # inches above a row, for its title and the notes of the row before
    height = (2.6 + gap) * len(rows) + 0.6
    figure = Figure(figsize=(2.6 * columns, height), dpi=130, facecolor="white")
    top = 1 - (0.35 + gap) / height
    figure.subplots_adjust(left=0, right=1, bottom=0.25 / height, top=top, wspace=0, hspace=gap / 2.6)
    axes = figure.subplots(len(rows), columns, squeeze=False, subplot_kw=dict(projection="3d", computed_zorder=False))
    for i, (row, head) in enumerate(zip(rows, heads, strict=True)):
        low, high = row[0].pos.min(0), row[0].pos.max(0)
        middle, half = (low + high) / 2, max((high - low).max() / 2, 1e-6)
        for ax, panel in zip(axes[i], row, strict=True):
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
            note = wrapped(panel.note)
            ax.text2D(0.5, 0.02, note, transform=ax.transAxes, ha="center", va="top", fontsize=8, parse_math=False)
            if i == 0:
                ax.set_title(panel.title, fontsize=9, fontweight="bold", pad=6 + 13 * lines)
        corner = axes[i, 0].get_position()
        figure.text(0.08 / columns, corner.y1, head, va="bottom", fontsize=9, parse_math=False)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def write_html(path: str | Path, rows: Sequence[Sequence[Panel]], titles: Sequence[str]) -> None:
    """The same as a page of its own."""
    try:
        from plotly.graph_objects import Scatter3d
        from plotly.subplots import make_subplots
    except ImportError as e:
        raise ModuleNotFoundError("a picture in .html needs plotly: pip install plotly", name="plotly") from e

    columns = len(rows[0])
    names = [
        "<br>".join(filter(None, [panel.title.replace("\n", ", "), title if j == 0 else "", panel.note]))
        for row, title in zip(rows, titles, strict=True)
        for j, panel in enumerate(row)
    ]
    figure = make_subplots(
        len(rows), columns, specs=[[{"type": "scene"}] * columns] * len(rows), subplot_titles=names,
        horizontal_spacing=0.01, vertical_spacing=0.06,
    )  # fmt: skip
    for i, row in enumerate(rows, start=1):
        for j, panel in enumerate(row, start=1):
            for pos, color, size in ((panel.pos, panel.color, 2), (panel.marks, panel.mark_color, 5)):
                marker = dict(size=size, color=[f"rgb{tuple((255 * c).astype(int).tolist())}" for c in color])
                x, y, z = pos.T
                figure.add_trace(Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, hoverinfo="none"), i, j)
    hidden = dict(visible=False)
    figure.update_scenes(aspectmode="data", xaxis=hidden, yaxis=hidden, zaxis=hidden)
    figure.update_layout(showlegend=False, height=420 * len(rows), margin=dict(l=0, r=0, t=60, b=0))
    figure.update_annotations(font_size=12)
    write_text(path, figure.to_html(include_plotlyjs=True))


def _size(points: int) -> float:
    """Of a marker in square points, such that the panel looks filled."""
    return float(np.clip(16000 / points, 0.35, 30))
