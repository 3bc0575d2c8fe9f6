"""Clusters drawn over the clouds that a model saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from pointmix.explain.colors import color_regions
from pointmix.explain.pictures import HEAD, _shown, _title
from pointmix.explain.scatter import write_html, write_png
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet

DRAWN = 30_000  # points of a set, at most
# right-handed frames with that axis upwards, looked at along the second axis: axes and signs
UP = {
    "x": ((1, 2, 0), (1, 1, 1)),
    "-x": ((1, 2, 0), (1, -1, -1)),
    "y": ((0, 2, 1), (1, -1, 1)),
    "-y": ((0, 2, 1), (1, 1, -1)),
    "z": ((0, 1, 2), (1, 1, 1)),
    "-z": ((0, 1, 2), (1, -1, -1)),
}


@dataclass(frozen=True)
class Panel:
    """One view: points with a color each, and marks (centers or anchors) with theirs."""

    title: str
    note: str
    pos: Float[np.ndarray, "n 3"]
    color: Float[np.ndarray, "n 3"]
    marks: Float[np.ndarray, "m 3"]
    mark_color: Float[np.ndarray, "m 3"]


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
    """Write a picture with a row for each cloud: its points, then their clusters in the first block and each stage's
    last. A .html file can be turned with the mouse (needs plotly), any other name is written as PNG.

    A point has the color of the cluster of head 0 that the stage's nearest point is in; a dot is the cluster's center,
    at the mean place of the points that form it. Of a model without `explain` the anchors of each stage are drawn.

    Args:
        model: takes `points`; its mode is as before afterwards.
        points: sets in three dimensions.
        path: the file, replaced if it is there.
        titles: a line for each set, such as the name of its class.
        mean, std: per channel, to undo the normalization of colors. Three channels within [0, 1] are taken for colors.
        up: what points upwards: "x", "-x", "y", "-y" (in the frame of a camera), "z" or "-z".
        max_sets: rows at most.
    Raises:
        ValueError: if there is no set, or their points do not have three dimensions.
        ModuleNotFoundError: if plotly is needed and not installed.
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
    points = points.in_type(weight.dtype).to(weight.device)  # as the model sees it, so that marks lie among the points
    with evaluating(model):
        if hasattr(model, "explain"):
            seen = [(_title(a), a) for a in _shown(model.explain(points))]
        else:
            stages = model.forward_intermediates(points, intermediates_only=True)
            seen = [(f"stage {i}", stage) for i, stage in enumerate(stages, start=1)]
    rows = [_row(cloud, row, seen, mean, std, up) for row, cloud in enumerate(points.unbind())]
    write = write_html if Path(path).suffix == ".html" else write_png
    write(path, rows, list(titles or [""] * len(rows))[: len(rows)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode within the block, afterwards as before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _row(cloud: PointSet, row: int, seen: list[tuple[str, Any]], mean, std, up: str) -> list[Panel]:
    """The panels of one set."""
    points = len(cloud.pos)
    drawn = torch.randperm(points, generator=torch.Generator().manual_seed(0))[:DRAWN]
    cloud = cloud.to("cpu").subset(drawn)
    pos = _upright(cloud.pos.double().numpy(), up)  # (n, 3)
    near = knn(cloud.pos, cloud.ptr, cloud.pos, cloud.ptr, 16)  # (n, 16)
    light = _light(pos, near.numpy())[:, None]  # (n, 1)
    own, none = _colors(cloud, pos, mean, std), np.zeros((0, 3))
    panels = [Panel("input", _counted(points, "point"), pos, own * light, none, none)]
    for title, stage in seen:
        if isinstance(stage, PointSet):
            anchors = stage.unbind()[row].pos.double().cpu().numpy()
            gray, red = np.full((len(pos), 3), 0.75), np.tile([0.85, 0.1, 0.15], (len(anchors), 1))
            note = _counted(len(anchors), "anchor")
            panels.append(Panel(title, note, pos, gray * light, _upright(anchors, up), red))
            continue
        center, window = _labels(cloud, stage, row)
        colors = _region_colors(center, window, near.numpy())
        paint = np.stack([colors[label] for label in center.tolist()])
        labels = np.array(list(colors))
        marks = _upright(stage.center_pos.double().cpu().numpy()[labels], up)
        stage_points = int(stage.points.ptr[row : row + 2].diff())
        note = f"{_counted(stage_points, 'point')}, {_counted(len(np.unique(window)), 'window')}"
        panels.append(Panel(title, note, pos, paint * light, marks, np.stack(list(colors.values()))))
    return panels


def _labels(cloud: PointSet, assignment: Any, row: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Center and window of every point of a set, by the stage's nearest point."""
    lo, hi = assignment.points.ptr[row : row + 2].tolist()
    stage = assignment.points.pos[lo:hi].to("cpu", cloud.pos.dtype)
    nearest = knn(stage, torch.tensor([0, hi - lo]), cloud.pos, cloud.ptr, 1)[:, 0]  # (n,)
    return tuple(x[lo:hi].cpu()[nearest].numpy() for x in (assignment.center[:, HEAD], assignment.window))


def _region_colors(
    center: Int[np.ndarray, "n"], window: Int[np.ndarray, "n"], near: Int[np.ndarray, "n k"]
) -> dict[int, Float[np.ndarray, "3"]]:
    """A color for each center, such that clusters next to one another or in one window differ."""
    index = np.stack([np.repeat(np.arange(len(near)), near.shape[1]), near.flatten()], axis=1)  # pairs of near points
    _, kept = np.unique(center[index], axis=0, return_index=True)  # one pair of points for a pair of clusters
    index = index[kept]
    # each pair as a row of a map, with an absent row below it
    labels = np.stack([center[index], np.full(index.shape, -1)], axis=1).reshape(-1, 2)
    groups = np.repeat(window[index], 2, axis=0)
    return color_regions(labels, groups)


def _upright(pos: Float[np.ndarray, "n 3"], up: str) -> Float[np.ndarray, "n 3"]:
    """Positions in a right-handed frame with the third axis upwards."""
    axes, signs = UP[up]
    return pos[:, axes] * signs


def _colors(cloud: PointSet, pos: Float[np.ndarray, "n 3"], mean, std) -> Float[np.ndarray, "n 3"]:
    """The points' own colors if they have them, else by height."""
    if cloud.feat.shape[1] >= 3:
        feat = cloud.feat[:, :3].float()
        feat = feat if std is None else feat * feat.new_tensor(std)[:3]
        feat = feat if mean is None else feat + feat.new_tensor(mean)[:3]
        if feat.min() >= -1e-3 and feat.max() <= 1 + 1e-3:
            return feat.clamp(0, 1).double().numpy()
    from matplotlib import colormaps

    height = pos[:, 2] - pos[:, 2].min()
    return colormaps["viridis"](height / max(height.max(), 1e-12))[:, :3]


def _light(pos: Float[np.ndarray, "n 3"], near: Int[np.ndarray, "n k"]) -> Float[np.ndarray, "n"]:
    """How bright a point is, by the slope of the plane through its neighbors, so that the shape can be seen."""
    around = pos[near] - pos[near].mean(1, keepdims=True)  # (n, k, 3)
    normal = np.linalg.eigh(around.swapaxes(1, 2) @ around)[1][..., 0]  # (n, 3) of the least extent
    lamp = np.array([0.45, -0.55, 0.7])
    return 0.55 + 0.45 * np.abs(normal @ (lamp / np.linalg.norm(lamp)))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
