"""Clusters of RGB-D frames, drawn on the image plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.explain.blocks import block_title, evaluating, explained_blocks
from pointmix.explain.images import draw_panel, enlarge, hide_axes, set_titles, to_pictures
from pointmix.io.fields import ImageLike
from pointmix.io.rgbd import Intrinsics, as_meters, has_depth
from pointmix.layouts.sparse import SparseGrid
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet
from pointmix.utils.atomic import replacing


@torch.no_grad()
def draw_frames(
    model: nn.Module,
    rgbs: Sequence[ImageLike],
    depths: Sequence[ImageLike],
    path: str | Path,
    intrinsics: Intrinsics | None = None,
    masks: Sequence[ImageLike | None] | None = None,
    *,
    depth_scale: float = 1000.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    transform: Callable[[PointSet], PointSet] | None = None,
    titles: Sequence[str] | None = None,
    max_frames: int = 4,
) -> None:
    """Write a PNG with a row for each frame: the photograph, then the clusters of its cloud in the first block and each
    stage's last. A color is a cluster, a dot its center; white lines separate windows; pixels without a depth are
    hatched. If no block of the model clusters, the title says so.

    Args:
        model: takes `PointSet.from_rgbd(rgb, depth, intrinsics, mask)`; with `explain`, if it clusters; its training
            mode is restored.
        rgbs, depths, masks: of each frame; these and the other arguments are those of `PointSet.from_rgbd`.
        path: the PNG, overwritten if it exists.
        transform: applied to each cloud before the model, such as a normalization; must keep all points.
        titles: one per frame.
        max_frames: maximum number of rows.

    Raises:
        ValueError: if the parts of a frame do not match, or there is no frame.
    """
    from matplotlib.figure import Figure  # takes half a second to import

    masks = [None] * len(rgbs) if masks is None else masks
    frames = list(zip(rgbs, depths, masks, strict=True))[:max_frames]
    if not frames:
        raise ValueError(f"draw_frames: no frame to draw ({len(rgbs)} given, max_frames {max_frames})")
    lattices = []  # the clouds with the pixels of their points
    for rgb, depth, mask in frames:
        cloud = PointSet.from_rgbd(rgb, depth, intrinsics, mask, depth_scale=depth_scale, mean=mean, std=std)
        cloud = (cloud if transform is None else transform(cloud)).in_type(next(model.parameters()).dtype)
        lattices.append(on_lattice(cloud, depth, mask, depth_scale=depth_scale))
    with evaluating(model):
        clouds = PointSet.cat([cloud.as_cloud() for cloud in lattices])
        blocks = explained_blocks(model, clouds.to(next(model.parameters()).device))

    rows, columns = len(lattices), 1 + len(blocks)
    figure = Figure(figsize=(2.6 * columns, 2.1 * rows + 0.5), dpi=130, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, (cloud, (rgb, _, _)) in enumerate(zip(lattices, frames, strict=True)):
        photo = to_pictures(PointSet.from_image(rgb), None, None)[0]  # (H, W, 3)
        axes[row, 0].imshow(enlarge(photo), interpolation="nearest")
        axes[row, 0].set_xlabel(titles[row] if titles else "", fontsize=8, parse_math=False)
        for ax, assignment in zip(axes[row, 1:], blocks, strict=True):
            on_image = replace(assignment, center_pos=pixels_of_centers(cloud, assignment.center_pos))
            draw_panel(ax, photo, cloud, on_image, row, inclusive=True)
    set_titles(axes[0], ["image" if blocks else "image\nno block clusters", *map(block_title, blocks)])
    hide_axes(axes)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def on_lattice(cloud: PointSet, depth: ImageLike, mask: ImageLike | None, *, depth_scale: float = 1000.0) -> PointSet:
    """The cloud of a frame with the pixels of its points as layout; arguments are those of `PointSet.from_rgbd`."""
    visible = has_depth(as_meters(depth, depth_scale), mask)  # (H, W)
    layout = SparseGrid(visible.nonzero().to(cloud.ptr.device), cloud.ptr.new_tensor([visible.shape]))
    return replace(cloud, layout=layout)


def pixels_of_centers(frame: PointSet, center_pos: Float[Tensor, "K 3"]) -> Float[Tensor, "K 2"]:
    """Row and column in [-0.5, 0.5] of each center: those of the point of the frame nearest to it."""
    center = center_pos.to(frame.pos.device, frame.pos.dtype)
    near = knn(frame.pos, frame.ptr, center, frame.ptr.new_tensor([0, len(center)]), 1)[:, 0]
    layout = frame.layout
    assert isinstance(layout, SparseGrid)
    return layout.cell[near] / (layout.size - 1).clamp(min=1) - 0.5
