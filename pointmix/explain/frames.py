"""Clusters of RGB-D frames, on the image plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.explain.clouds import evaluating
from pointmix.explain.pictures import _draw_panel, _enlarge, _pictures, _shown, _title
from pointmix.io.rgbd import as_meters, has_depth
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet


@torch.no_grad()
def draw_frames(
    model: nn.Module,
    rgbs: Sequence[Any],
    depths: Sequence[Any],
    path: str | Path,
    intrinsics: Any = None,
    masks: Sequence[Any] | None = None,
    *,
    depth_scale: float = 1000.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    transform: Callable[[PointSet], PointSet] | None = None,
    titles: Sequence[str] | None = None,
    max_frames: int = 4,
) -> None:
    """Write a PNG with a row for each frame: the photograph, then the clusters of its cloud, a color for each, in the
    first block and each stage's last. Dots are centers, white lines part windows; pixels without a depth are hatched.

    Args:
        model: has `explain`, and takes `PointSet.from_rgbd(rgb, depth, intrinsics, mask)`; its mode is as before
            afterwards.
        rgbs, depths, masks: of each frame; they and the other arguments are those of `PointSet.from_rgbd`.
        path: the PNG, replaced if it is there.
        transform: done to each cloud before the model sees it, such as a normalization; must keep all its points.
        titles: a line for each frame.
        max_frames: rows at most.
    Raises:
        ValueError: if a frame does not fit together, or there is none.
        AttributeError: if the model has no `explain`.
    """
    from matplotlib.figure import Figure  # half a second, needed only to draw

    from pointmix.utils.atomic import replacing

    masks = [None] * len(rgbs) if masks is None else masks
    frames = list(zip(rgbs, depths, masks, strict=True))[:max_frames]
    if not frames:
        raise ValueError(f"draw_frames: no frame to draw ({len(rgbs)} given, max_frames {max_frames})")
    seen = []  # clouds that know their pixels
    for rgb, depth, mask in frames:
        cloud = PointSet.from_rgbd(rgb, depth, intrinsics, mask, depth_scale=depth_scale, mean=mean, std=std)
        cloud = (cloud if transform is None else transform(cloud)).in_type(next(model.parameters()).dtype)
        visible = has_depth(as_meters(depth, depth_scale), mask)  # (H, W)
        layout = SparseGrid(visible.nonzero().to(cloud.ptr.device), cloud.ptr.new_tensor([visible.shape]))
        seen.append(replace(cloud, layout=layout))
    with evaluating(model):
        clouds = PointSet.cat([cloud.as_cloud() for cloud in seen])
        shown = _shown(model.explain(clouds.to(next(model.parameters()).device)))

    columns = 1 + len(shown)
    figure = Figure(figsize=(2.6 * columns, 2.1 * len(seen) + 0.5), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots(len(seen), columns, squeeze=False)
    for row, (cloud, (rgb, _, _)) in enumerate(zip(seen, frames, strict=True)):
        photo = _pictures(PointSet.from_image(rgb), None, None)[0]  # (H, W, 3)
        axes[row, 0].imshow(_enlarge(photo), interpolation="nearest")
        axes[row, 0].set_xlabel(titles[row] if titles else "", fontsize=8, parse_math=False)
        for ax, assignment in zip(axes[row, 1:], shown, strict=True):
            _draw_panel(ax, photo, cloud, replace(assignment, center_pos=_pixels(cloud, assignment)), row, last=True)
    for ax, title in zip(axes[0], ["image", *map(_title, shown)], strict=True):
        ax.set_title(title, fontsize=9, fontweight="bold")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _pixels(cloud: PointSet, assignment: Any) -> Float[Tensor, "K 2"]:
    """Where the centers are in the image, by the point of the frame nearest to each: rows, columns in [-0.5, 0.5]."""
    center = assignment.center_pos.to(cloud.pos.device, cloud.pos.dtype)
    near = knn(cloud.pos, cloud.ptr, center, cloud.ptr.new_tensor([0, len(center)]), 1)[:, 0]
    return cloud.layout.cell[near] / (cloud.layout.size - 1).clamp(min=1) - 0.5
