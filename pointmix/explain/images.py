"""Clusters drawn over images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pointmix.explain.blocks import (
    block_title,
    center_and_window,
    evaluating,
    explained_blocks,
    groups_nothing,
    truth_and_guess,
    wrapped,
)
from pointmix.explain.colors import color_regions
from pointmix.nn.stage import Assignment
from pointmix.pointset import PointSet
from pointmix.utils.atomic import replacing
from pointmix.utils.messages import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_SIDE = 448  # approximate pixels of the longer side of a panel


@torch.no_grad()
def draw_clusters(
    model: nn.Module,
    images: Float[Tensor, "B C H W"] | PointSet,
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    max_images: int = 4,
) -> None:
    """Write a PNG with a row for each image: the image, then its clusters in the first block and each stage's last.

    A region of one color is a cluster of head 0; a dot is its center, at the mean position of the points that form it;
    white lines separate windows. Absent pixels are hatched gray. If no block of the model clusters, the title says so.
    A block with as many centers as points groups nothing; its panel says so in place of colors.

    Args:
        model: with `explain(x) -> list[Assignment]`, if it clusters; its training mode is restored.
        images: the model's input, normalized: an image batch, or point sets on a lattice, masked or not.
        path: the PNG, overwritten if it exists.
        mean, std: per channel, to undo the normalization. Without them, values outside [0, 1] are rescaled to it.
        classes: class names; if given, the predicted one is written below each image.
        labels: the true class of each image, written beside the predicted one.
        max_images: maximum number of rows.

    Raises:
        ValueError: if there is no image, or the points do not lie on a lattice, or labels are not one per image.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    mode = getattr(model, "coord_mode", "inclusive")
    points = images if isinstance(images, PointSet) else PointSet.from_batch(images, coord_mode=mode)
    if points.num_sets == 0 or max_images < 1:
        raise ValueError(f"draw_clusters: no image to draw ({points.num_sets} given, max_images {max_images})")
    if labels is not None and (classes is None or len(labels) != points.num_sets):
        raise ValueError(
            f"draw_clusters: {points.num_sets} images but {len(labels)} labels, or no names of the classes"
        )
    points = points if points.num_sets <= max_images else PointSet.cat(points.unbind()[:max_images])
    x = points if isinstance(images, PointSet) else images[:max_images]

    with evaluating(model):
        blocks = explained_blocks(model, x)
        probabilities = model(x).float().softmax(1) if classes is not None else None  # (B, classes)
    pictures = to_pictures(points, mean, std)

    rows, columns = len(pictures), 1 + len(blocks)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows + 0.55), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (picture, pixels) in enumerate(zip(pictures, points.unbind(), strict=True)):
        axes[row, 0].imshow(hatched(enlarge(picture)), interpolation="nearest")
        if classes is not None and probabilities is not None:
            best = int(probabilities[row].argmax())
            name = classes[best] if best < len(classes) else f"class {best}"
            truth = None if labels is None else classes[labels[row]]
            text = wrapped(truth_and_guess(truth, name, float(probabilities[row, best])))
            color = "tab:red" if truth not in (None, name) else "black"
            axes[row, 0].set_xlabel(text, fontsize=9, parse_math=False, color=color)
        for column, assignment in enumerate(blocks, start=1):
            draw_panel(axes[row, column], picture, pixels, assignment, row, inclusive=mode == "inclusive")
    set_titles(axes[0], ["image" if blocks else "image\nno block clusters", *map(block_title, blocks)])
    hide_axes(axes)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def set_titles(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize=9, fontweight="bold")


def hide_axes(axes: np.ndarray) -> None:
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)


def to_pictures(
    points: PointSet, mean: Sequence[float] | None, std: Sequence[float] | None
) -> list[Float[np.ndarray, "H W 3"]]:
    """An RGB image in [0, 1] for each set, NaN where absent."""
    feat = points.feat.float()
    feat = feat if std is None else feat * feat.new_tensor(std)
    feat = feat if mean is None else feat + feat.new_tensor(mean)
    if mean is None and std is None and (feat.min() < 0 or feat.max() > 1):
        feat = (feat - feat.min()) / (feat.max() - feat.min())
    feat = feat[:, :3] if feat.shape[1] >= 3 else feat[:, :1].expand(-1, 3)  # only the first three or one are drawn
    maps = points.with_feat(feat.clamp(0, 1)).to_image(fill=float("nan"))
    return [m.permute(1, 2, 0).cpu().numpy() for m in maps]


def label_maps(
    cloud: PointSet, assignment: Assignment, row: int
) -> tuple[Int[np.ndarray, "H W"], Int[np.ndarray, "H W"]]:
    """Center and window of every pixel of image `row`, those of the nearest point of the stage; -1 if absent."""
    labels = torch.stack(center_and_window(assignment, row, cloud.pos.double().cpu()), dim=1)  # (pixels, 2)
    maps = cloud.with_feat(labels.double().to(cloud.feat.device)).to_image(fill=-1)[0].long().cpu().numpy()
    return maps[0], maps[1]


def draw_panel(
    ax: Axes,
    picture: Float[np.ndarray, "H W 3"],
    pixels: PointSet,
    assignment: Assignment,
    row: int,
    *,
    inclusive: bool,
) -> None:
    """The clusters of a block; with `inclusive` the last pixel of a side is at 0.5, else the one after it."""
    points = int(assignment.points.ptr[row : row + 2].diff())
    if groups_nothing(assignment, row):
        ax.imshow(hatched(enlarge(0.35 * picture + 0.65)), interpolation="nearest")
        text = "as many centers as points:\nnothing is grouped"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9, bbox=box)
        ax.set_xlabel(counted(points, "point"), fontsize=8)
        return
    center, window = label_maps(pixels, assignment, row)
    colors = color_regions(center, window)
    paint = np.full(picture.shape, np.nan)
    for label, color in colors.items():
        paint[center == label] = color
    gray = picture.mean(axis=2, keepdims=True)  # keeps the image visible under the color
    overlay = hatched(enlarge(0.62 * paint + 0.38 * gray))
    overlay[_edges(enlarge(center))] *= 0.35
    overlay[_edges(enlarge(window))] = 1.0
    ax.imshow(overlay, interpolation="nearest")

    scale = len(overlay) / len(picture)
    sides = np.array(picture.shape[:2])
    labels = np.array(list(colors))
    at = (assignment.center_pos.float().cpu().numpy()[labels] + 0.5) * (sides - inclusive)  # (centers, 2), in pixels
    at = (at + 0.5) * scale - 0.5
    size = np.clip(1200 / len(labels), 3, 40)
    ax.scatter(at[:, 1], at[:, 0], s=size, c=list(colors.values()), edgecolors="black", linewidths=np.sqrt(size) / 8)
    windows = len(np.unique(window[window >= 0]))
    ax.set_xlabel(f"{counted(points, 'point')}, {counted(windows, 'window')}", fontsize=8)


def enlarge(image: np.ndarray) -> np.ndarray:
    """Repeat pixels until the longer side is about `PANEL_SIDE`."""
    factor = max(1, round(PANEL_SIDE / max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def hatched(image: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """The image with diagonal gray stripes in place of NaN pixels."""
    rows, columns = np.indices(image.shape[:2])
    width = max(1, max(image.shape[:2]) // 40)
    stripes = np.where((rows + columns) // width % 2, 0.86, 0.78)[..., None]
    return np.where(np.isnan(image), stripes, image)


def _edges(labels: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """True along the borders between different labels, both present."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= (labels[1:] != labels[:-1]) & (labels[1:] >= 0) & (labels[:-1] >= 0)
    edge[:, 1:] |= (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] >= 0) & (labels[:, :-1] >= 0)
    return edge
