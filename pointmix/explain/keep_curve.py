"""A plot of accuracy against the fraction of points kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pointmix.explain.colors import palette
from pointmix.utils.atomic import replacing


def draw_keep_curve(
    path: str | Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str = "",
    score: str = "top-1",
    chance: float | None = None,
) -> None:
    """Write a PNG with a line for each network.

    Args:
        path: the PNG, overwritten if it exists.
        curves: name of the network -> (fraction of points kept, accuracy) in any order, both in [0, 1].
        title: of the plot.
        score: name of the accuracy.
        chance: accuracy of guessing, drawn as a dotted line.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    if not curves or not all(curves.values()):
        raise ValueError(
            f"draw_keep_curve: no points to draw for {[name for name, c in curves.items() if not c] or 'any'}"
        )
    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained", facecolor="white")
    ax = figure.subplots()
    colors = palette()[[2, 4, 1, 5, 0, 9, 10, 7]]  # blue first; none too pale for a thin line
    for i, (name, curve) in enumerate(curves.items()):
        kept, accuracy = zip(*sorted(curve), strict=True)
        color = colors[i % len(colors)]
        x, y = [100 * k for k in kept], [100 * a for a in accuracy]
        ax.plot(x, y, color=color, marker="o", ms=4, lw=1.6, label=name)
        for at, value in zip(x, y, strict=True):
            label = f"{value:.1f}"
            ax.annotate(label, (at, value), (0, 5), textcoords="offset points", ha="center", fontsize=7, color=color)
    if chance is not None:
        ax.axhline(100 * chance, color="gray", ls=":", lw=1, label="chance")
    ax.set(xlabel="points kept (%)", ylabel=f"{score} on test (%)", xlim=(0, 104), ylim=(0, 100))
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    for text in ax.legend(frameon=False, loc="best", fontsize=8).get_texts():
        text.set_parse_math(False)
    with replacing(path) as file:
        figure.savefig(file, format="png")
