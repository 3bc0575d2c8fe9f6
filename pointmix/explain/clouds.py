"""Clusters drawn over point clouds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from pointmix.explain.blocks import block_title, center_and_window, evaluating, explained_blocks, groups_nothing
from pointmix.explain.colors import color_regions
from pointmix.explain.scatter import Panel, write_png
from pointmix.nn.stage import Assignment
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet
from pointmix.utils.messages import counted

MAX_POINTS = 30_000  # drawn of a set
# up axis -> axes and signs of a right-handed frame with it as third axis, viewed along the second
UP = {
    "x": ((1, 2, 0), (1, 1, 1)),
    "-x": ((1, 2, 0), (1, -1, -1)),
    "y": ((0, 2, 1), (1, -1, 1)),
    "-y": ((0, 2, 1), (1, 1, -1)),
    "z": ((0, 1, 2), (1, 1, 1)),
    "-z": ((0, 1, 2), (1, -1, -1)),
}


@torch.no_grad()
def draw_clouds(
    model: nn.Module,
    points: PointSet,
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    up: str = "y",
    max_sets: int = 4,
) -> None:
    """Write a PNG with a row for each cloud: its points, then their clusters in the first block and each stage's last.

    A point has the color of the cluster of the stage's nearest point, of head 0; a dot is a center, at the mean
    position of the points that form it. For a model without `explain` the points of each stage are drawn. If no block
    of the model clusters, the note of the first panel says so.

    Args:
        model: takes `points`; its training mode is restored.
        points: sets in three dimensions.
        path: the file, overwritten if it exists.
        titles: one per set, such as the name of its class.
        mean, std: per channel, to undo the normalization of colors. Three channels within [0, 1] are taken as colors.
        up: the up axis: "x", "-x", "y", "-y" (in a camera frame), "z" or "-z".
        max_sets: maximum number of rows.

    Raises:
        ValueError: if there is no set, or the points are not in three dimensions.
    """
    if max_sets < 1 or points.pos.shape[1] != 3:
        raise ValueError(
            f"draw_clouds: expected points in 3 dimensions and at least one set to draw, got {points.pos.shape[1]} "
            f"and max_sets {max_sets}"
        )
    if up not in UP:
        raise ValueError(f"draw_clouds: up must be one of {', '.join(UP)}, got {up!r}")
    points = points if points.num_sets <= max_sets else PointSet.cat(points.unbind()[:max_sets])
    if titles is not None and len(titles) < points.num_sets:
        raise ValueError(f"draw_clouds: {points.num_sets} sets but {len(titles)} titles")
    weight = next(model.parameters())
    points = points.in_type(weight.dtype).to(weight.device)  # as the model's input, so that marks match the points
    with evaluating(model):
        stages: list[tuple[str, Assignment | PointSet]]
        intermediates: Callable[..., list[PointSet]] | None = getattr(model, "forward_intermediates", None)
        if hasattr(model, "explain") or intermediates is None:
            stages = [(block_title(a), a) for a in explained_blocks(model, points)]
        else:
            found = intermediates(points, intermediates_only=True)
            stages = [(f"stage {i}", stage) for i, stage in enumerate(found, start=1)]
    rows = [_row(cloud, row, stages, mean, std, up) for row, cloud in enumerate(points.unbind())]
    write_png(path, rows, list(titles or [""] * len(rows))[: len(rows)])


def _row(
    cloud: PointSet,
    row: int,
    stages: list[tuple[str, Assignment | PointSet]],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    up: str,
) -> list[Panel]:
    """The panels of one set."""
    points = len(cloud.pos)
    subset = torch.randperm(points, generator=torch.Generator().manual_seed(0))[:MAX_POINTS]
    cloud = cloud.to("cpu").subset(subset)
    pos = upright(cloud.pos.double().numpy(), up)  # (n, 3)
    near = knn(cloud.pos, cloud.ptr, cloud.pos, cloud.ptr, 16)  # (n, 16)
    shade = light(pos, near.numpy())[:, None]  # (n, 1)
    own, none = cloud_colors(cloud, pos, mean, std), np.zeros((0, 3))
    note = counted(points, "point") + ("" if stages else ", no block clusters")
    panels = [Panel("input", note, pos, own * shade, none, none)]
    for title, stage in stages:
        if isinstance(stage, PointSet):
            anchors = stage.unbind()[row].pos.double().cpu().numpy()
            gray, red = np.full((len(pos), 3), 0.75), np.tile([0.85, 0.1, 0.15], (len(anchors), 1))
            note = counted(len(anchors), "anchor")
            panels.append(Panel(title, note, pos, gray * shade, upright(anchors, up), red))
            continue
        stage_points = int(stage.points.ptr[row : row + 2].diff())
        if groups_nothing(stage, row):
            pale = np.full((len(pos), 3), 0.85) * shade
            note = f"{counted(stage_points, 'point')}, as many centers: nothing is grouped"
            panels.append(Panel(title, note, pos, pale, none, none))
            continue
        center, window = (labels.numpy() for labels in center_and_window(stage, row, cloud.pos))
        colors = region_colors(center, window, near.numpy())
        paint = np.stack([colors[label] for label in center.tolist()])
        labels = np.array(list(colors))
        marks = upright(stage.center_pos.double().cpu().numpy()[labels], up)
        note = f"{counted(stage_points, 'point')}, {counted(len(np.unique(window)), 'window')}"
        panels.append(Panel(title, note, pos, paint * shade, marks, np.stack(list(colors.values()))))
    return panels


def region_colors(
    center: Int[np.ndarray, "n"], window: Int[np.ndarray, "n"], near: Int[np.ndarray, "n k"]
) -> dict[int, Float[np.ndarray, "3"]]:
    """A color for each center, such that neighboring clusters, and clusters in one window, differ."""
    index = np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.flatten()], axis=1)  # pairs of neighbors
    pair = center[index].astype(np.int64) @ (center.max() + 1, 1)  # one number a pair of clusters sorts faster than two
    _, first = np.unique(pair, return_index=True)  # one pair of points for a pair of clusters
    index = index[first]
    # each pair as a row of a label map, followed by an absent row
    labels = np.stack([center[index], np.full(index.shape, -1)], axis=1).reshape(-1, 2)
    groups = np.repeat(window[index], 2, axis=0)
    return color_regions(labels, groups)


def upright(pos: Float[np.ndarray, "n 3"], up: str) -> Float[np.ndarray, "n 3"]:
    """Positions in a right-handed frame whose third axis is up."""
    axes, signs = UP[up]
    return pos[:, axes] * signs


def cloud_colors(
    cloud: PointSet, pos: Float[np.ndarray, "n 3"], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Float[np.ndarray, "n 3"]:
    """The colors of the points if they have any, else colors by height."""
    if cloud.feat.shape[1] >= 3:
        feat = cloud.feat[:, :3].float()
        feat = feat if std is None else feat * feat.new_tensor(std)[:3]
        feat = feat if mean is None else feat + feat.new_tensor(mean)[:3]
        if feat.min() >= -1e-3 and feat.max() <= 1 + 1e-3:
            return feat.clamp(0, 1).double().numpy()
    from matplotlib import colormaps

    height = pos[:, 2] - pos[:, 2].min()
    return colormaps["viridis"](height / max(height.max(), 1e-12))[:, :3]


def light(pos: Float[np.ndarray, "n 3"], near: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """Brightness by the slope of the plane through the neighbors of a point (Lambertian shading)."""
    around = pos[near] - pos[near].mean(1, keepdims=True)  # (n, k, 3)
    normal = np.linalg.eigh(around.swapaxes(1, 2) @ around)[1][..., 0]  # (n, 3) direction of least variance
    lamp = np.array([0.45, -0.55, 0.7])
    return 0.55 + 0.45 * np.abs(normal @ (lamp / np.linalg.norm(lamp)))
