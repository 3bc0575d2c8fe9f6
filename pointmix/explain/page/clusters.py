"""The clusters of every block of a network, for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.explain.blocks import block_title, groups_nothing, nearest_points, stage_of
from pointmix.explain.clouds import region_colors
from pointmix.explain.colors import color_regions
from pointmix.explain.page.groups import group_assignments
from pointmix.explain.page.scene import Scene
from pointmix.explain.page.view import BlockView, Lattice, as_bytes, index
from pointmix.models.pointmlp import PointMLP
from pointmix.nn.stage import Assignment
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet

NEIGHBORS = 8  # of a point of a block in a cloud, whose clusters must differ in color


def assignments_of(model: nn.Module, x: Tensor | PointSet) -> list[Assignment]:
    """The assignment of every block that clusters; none for networks without clustering."""
    if isinstance(model, PointMLP):
        assert isinstance(x, PointSet)
        return group_assignments(model, x)
    explain: Callable[[Tensor | PointSet], list[Assignment]] | None = getattr(model, "explain", None)
    return [] if explain is None else explain(x)


def block_views(scene: Scene, model: nn.Module, assignments: Sequence[Assignment]) -> list[BlockView]:
    """What the page shows of each block."""
    nearest: dict[str, Int[np.ndarray, "N"]] = {}  # blocks of a stage have the same points
    views = []
    for assignment in assignments:
        if (stage := stage_of(assignment)) not in nearest:
            nearest[stage] = nearest_points(assignment.points, 0, scene.pos).numpy()
        if isinstance(model, PointMLP):  # every group is a window, those that are no point's first one, too
            soft, windows = True, len(assignment.center_pos)
        else:
            soft = getattr(getattr(model.get_submodule(assignment.name), "mixer", None), "soft", False)
            windows = int(assignment.window.max()) + 1
        views.append(_block_view(scene, assignment, nearest[stage], windows, soft=soft))
    return views


def _block_view(
    scene: Scene, assignment: Assignment, nearest: Int[np.ndarray, "N"], windows: int, *, soft: bool
) -> BlockView:
    center, weight = assignment.center.cpu().numpy(), assignment.weight.float().cpu().numpy()  # (S, E)
    window = assignment.window.cpu().numpy()
    stage, _, block = assignment.name.rpartition(".blocks.")
    if isinstance(scene.points, Lattice):
        color = _lattice_colors(scene.points, center[nearest], window[nearest], len(assignment.center_pos))
    else:
        color = _cloud_colors(assignment.points, center, window, len(assignment.center_pos))
    points = len(center)
    if points > len(nearest):  # most are shown by no point
        kept, nearest = np.unique(nearest, return_inverse=True)
        center, weight, window = center[kept], weight[kept], window[kept]
    return BlockView(
        name=block_title(assignment).partition("\n")[0],
        stage=int(stage.rpartition(".")[2]),
        block=int(block),
        kind="soft" if soft else "hard",
        points=points,
        windows=windows,
        centers=len(assignment.center_pos) // windows,
        trivial=groups_nothing(assignment, 0),
        nearest=index(nearest),
        window=index(window),
        center=index(center),
        weight=as_bytes(weight),
        center_position=scene.place(assignment.center_pos),
        color=color,
    )


def _lattice_colors(
    lattice: Lattice, center: Int[np.ndarray, "N E"], window: Int[np.ndarray, "N"], centers: int
) -> np.ndarray:
    """(E, K, 3) bytes: clusters that touch on the lattice, or share a window, differ."""
    groups = np.full(lattice.height * lattice.width, -1)
    groups[lattice.pixel] = window
    shape = lattice.height, lattice.width
    heads = []
    for head in center.T:
        labels = np.full(groups.shape, -1)
        labels[lattice.pixel] = head
        heads.append(_table(color_regions(labels.reshape(shape), groups.reshape(shape)), centers))
    return np.stack(heads)


def _cloud_colors(
    points: PointSet, center: Int[np.ndarray, "S E"], window: Int[np.ndarray, "S"], centers: int
) -> np.ndarray:
    """(E, K, 3) bytes: clusters of neighboring points, or of one window, differ."""
    pos, ptr = points.pos.cpu(), points.ptr.cpu()
    near = knn(pos, ptr, pos, ptr, NEIGHBORS).numpy()
    return np.stack([_table(region_colors(head, window, near), centers) for head in center.T])


def _table(colors: dict[int, Float[np.ndarray, "3"]], centers: int) -> np.ndarray:
    """(K, 3) bytes; gray for centers that no shown point joined."""
    table = np.full((centers, 3), 160, dtype=np.uint8)
    table[list(colors)] = as_bytes(np.stack(list(colors.values())))
    return table
