"""Labels of points: pictures of predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from pointmix.explain.class_colors import Color, add_legend, class_colors
from pointmix.explain.clouds import UP, light, upright
from pointmix.explain.images import hide_axes, set_titles
from pointmix.ops.neighbors import knn
from pointmix.utils.atomic import replacing
from pointmix.utils.messages import counted

WIDTH = 4.4  # inches of a panel
MAX_POINTS = 40_000  # drawn of a cloud
UNLABELED, WRONG, RIGHT = (0.88, 0.88, 0.88), (0.85, 0.05, 0.1), (0.75, 0.75, 0.75)


def draw_cloud_predictions(
    path: str | Path,
    clouds: Sequence[Float[np.ndarray, "n 3"]],
    labels: Sequence[Int[np.ndarray, "n"]],
    predictions: Sequence[Int[np.ndarray, "n"]],
    classes: Sequence[str],
    palette: Sequence[Color] | None = None,
    *,
    up: str = "z",
    names: Sequence[str] | None = None,
) -> None:
    """Write a PNG with a row for each cloud: the truth, the prediction, and the errors in red, with equal axes. Below
    is a legend of the classes that occur. Points without a label are pale gray. Large clouds are thinned at random.

    Args:
        path: the PNG, overwritten if it exists.
        clouds: positions of the points of each cloud.
        labels, predictions: of its points, negative where there is none.
        classes: K names.
        palette: K colors, 0 to 255; None for default colors.
        up: the up axis: x, -x, y, -y, z or -z.
        names: of the clouds.

    Raises:
        ValueError: there is no cloud, sizes differ, or the up axis is unknown.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    if not clouds:
        raise ValueError("draw_cloud_predictions: no cloud to draw")
    if up not in UP:
        raise ValueError(f"draw_cloud_predictions: up must be one of {', '.join(UP)}, got {up!r}")
    colors = class_colors(len(classes), palette) / 255
    chosen = [np.random.default_rng(0).permutation(len(pos))[:MAX_POINTS] for pos in clouds]
    seen = [upright(pos[index].astype(np.float64), up) for pos, index in zip(clouds, chosen, strict=True)]
    views = [_projected(pos) for pos in seen]
    tall = [WIDTH * float(np.clip(np.ptp(view[:, 1]) / max(np.ptp(view[:, 0]), 1e-9), 0.4, 1)) for view in views]
    size = 3 * WIDTH, sum(tall) + 0.2 * len(tall) + 0.3
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(len(clouds), 3, squeeze=False, height_ratios=tall)
    for row, (pos, label, predicted) in enumerate(zip(clouds, labels, predictions, strict=True)):
        if not len(pos) == len(label) == len(predicted):
            numbers = f"{len(pos)}, {len(label)} and {len(predicted)}"
            raise ValueError(f"draw_cloud_predictions: positions, truth and prediction of each point, got {numbers}")
        there = label[chosen[row]], predicted[chosen[row]]
        both, wrong = (there[0] >= 0) & (there[1] >= 0), there[0] != there[1]
        paints = [_painted(there[0], colors), _painted(there[1], colors)]
        paints.append(np.where(both[:, None], np.where(wrong[:, None], WRONG, RIGHT), UNLABELED))
        order, shade = views[row][:, 2].argsort(kind="stable"), _shade(seen[row])[:, None]  # the nearest last
        x, y = views[row][order, :2].T
        room = 72**2 * WIDTH * tall[row] / len(x)  # square points of the panel for each point
        for ax, paint in zip(axes[row], paints, strict=True):
            ax.scatter(x, y, s=np.clip(0.55 * room, 0.5, 40), c=(paint * shade)[order].clip(0, 1), linewidths=0)
            ax.set_aspect("equal", adjustable="datalim")
        judged = (label >= 0) & (predicted >= 0)
        right = f"{(label == predicted)[judged].mean():.1%} right" if judged.any() else "no labels"
        for ax, note in zip(axes[row], (names[row] if names else "", counted(len(pos), "point"), right), strict=True):
            ax.set_xlabel(note, fontsize=9, parse_math=False)
    set_titles(axes[0], ["truth", "prediction", "errors"])
    hide_axes(axes)
    unlabeled = any((label < 0).any() for label in [*labels, *predictions])
    more = [("no label", "0.88")] if unlabeled else []
    lines = add_legend(figure, [*labels, *predictions], classes, (255 * colors).round().astype(np.uint8), more=more)
    figure.set_figheight(size[1] + 0.22 * lines)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _painted(label: Int[np.ndarray, "n"], colors: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "n 3"]:
    return np.where((label < 0)[:, None], UNLABELED, colors[label.clip(min=0)])


def _shade(pos: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
    """Brightness by the slope of the surface, less than in pictures of clusters, so that classes keep their color."""
    points = torch.from_numpy(pos).float()
    ptr = torch.tensor([0, len(points)])
    near = knn(points, ptr, points, ptr, min(16, len(points)))
    return 0.4 + 0.6 * light(pos, near.numpy())


def _projected(pos: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Orthographic view, from higher above if the points are flat: right, up, and towards the viewer."""
    extent = np.ptp(pos, axis=0)
    elevation, azimuth = np.deg2rad(40.0 if extent[2] < 0.4 * max(extent[:2]) else 20.0), np.deg2rad(-65.0)
    x, y, z = (pos - pos.mean(0)).T
    away, right = np.cos(azimuth) * x + np.sin(azimuth) * y, np.cos(azimuth) * y - np.sin(azimuth) * x
    above = np.cos(elevation) * z - np.sin(elevation) * away
    return np.stack([right, above, np.cos(elevation) * away + np.sin(elevation) * z], 1)
