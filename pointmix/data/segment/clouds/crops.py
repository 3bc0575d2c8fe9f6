"""Parts of scenes: cells of a grid, spheres and boxes, their covers of a whole scene, and their normalization.

The cost is linear in the points, up to sorting.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.data import transforms as T
from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.io.errors import UnreadableSample
from pointmix.layouts.cloud import Cloud
from pointmix.pointset import PointSet

AXES = ("x", "y", "z")
MANY = 500  # points of a cell that are worth a warning


def horizontal(up: str | None) -> list[int]:
    """The two axes at right angles to the up axis; None: z."""
    return [axis for axis in range(3) if axis != AXES.index(up or "z")]


def cell_keys(pos: Float[Tensor, "N D"], size: float) -> tuple[Int[Tensor, "N"], Int[Tensor, "D"]]:
    """A number for the cell of each point, in a cubic grid with a corner at the lowest coordinates.

    Neighbors of a cell have the numbers key + offset @ stride, where offset is -1, 0 or 1 along each axis.

    Returns:
        keys, and the stride of each axis.

    Raises:
        UnreadableSample: if the grid has too many cells to count.
    """
    cell = ((pos.double() - pos.double().amin(0)) / size).floor() + 1  # with an empty cell on every side
    extent = cell.amax(0) + 2
    if not extent.prod() < 2**62:
        span = ", ".join(f"{side:g}" for side in (extent * size).tolist())
        raise UnreadableSample(f"cells of {size:g} are too small for points that span {span}")
    sides = extent.long()
    stride = torch.cat([sides[1:].flip(0).cumprod(0).flip(0), sides.new_ones(1)])
    return (cell.long() * stride).sum(1), stride


def one_per_cell(pos: Float[Tensor, "N D"], size: float) -> Int[Tensor, "K"]:
    """A random point of each cell; random numbers from torch's global generator."""
    order = torch.randperm(len(pos))
    key, by_cell = cell_keys(pos, size)[0][order].sort(stable=True)
    first = torch.cat([key.new_ones(1, dtype=torch.bool), key.diff() != 0])
    return order[by_cell[first]]


def grid_fragments(points: PointSet, grid_size: float) -> list[Int[Tensor, "K"]]:
    """A scene as samples of a grid, which together hold every point.

    Fragment j holds the j-th point of every cell, modulo the number of points in the cell: every fragment has one point
    of each cell, and there are as many as points in the fullest cell (Pointcept's test mode).

    Args:
        points: one set.
        grid_size: side of the cells, in the unit of the positions.

    Returns:
        Indices of the points of each fragment.

    Raises:
        ValueError: if there are several sets, or the grid has too many cells to count.
    """
    _check_one(points)
    key, order = cell_keys(points.pos, grid_size)[0].sort(stable=True)
    count = key.unique_consecutive(return_counts=True)[1]
    start = count.cumsum(0) - count
    if (most := int(count.max())) > MANY:
        what = f"a cell of data.grid_size {grid_size:g} holds {most} points (are there duplicates?)"
        warnings.warn(f"{what}, and each of them costs a pass; --fast labels a cell by one of its points", stacklevel=2)
    return [order[start + j % count] for j in range(most)]


def sphere_cover(pos: Float[Tensor, "N 3"], radius: float, *, spacing: float = 1.0) -> list[Int[Tensor, "K"]]:
    """Overlapping spheres that together hold every point.

    Their centers are the middles of the cells of a grid that hold a point. A point in space lies in 4.2 / spacing^3
    spheres on average.

    Args:
        radius: in the unit of the positions.
        spacing: side of the cells over the radius, from 1 to 1.15.

    Returns:
        Indices of the points of each sphere, ascending.
    """
    if not 1 <= spacing <= 2 / 3**0.5:
        raise ValueError(f"spacing must be from 1 to {2 / 3**0.5:.4g}, got {spacing}")
    return _cover(pos, spacing * radius, lambda away: away.square().sum(1) <= radius**2)


def box_cover(
    pos: Float[Tensor, "N 3"], side: float, *, up: str | None = None, spacing: float = 0.5
) -> list[Int[Tensor, "K"]]:
    """Overlapping columns with a square base along the up axis, which together hold every point.

    A point lies in 1 / spacing^2 columns on average.

    Args:
        side: of the base, in the unit of the positions.
        up: x, y or z; None: z.
        spacing: distance between columns over their side, from 0.5 to 1 (no overlap).

    Returns:
        Indices of the points of each column, ascending.
    """
    if not 0.5 <= spacing <= 1:
        raise ValueError(f"spacing must be from 0.5 to 1, got {spacing}")
    return _cover(pos[:, horizontal(up)], spacing * side, lambda away: (away.abs() <= side / 2).all(1))


def _cover(
    pos: Float[Tensor, "N D"], size: float, inside: Callable[[Float[Tensor, "M D"]], Bool[Tensor, "M"]]
) -> list[Int[Tensor, "K"]]:
    """For each cell with a point, the points around its middle that are `inside`, from its own and adjacent cells."""
    pos = pos.double() - pos.double().amin(0)
    key, stride = cell_keys(pos, size)
    cells, cell = key.unique(return_inverse=True)
    middle = pos.new_empty(len(cells), pos.shape[1])
    middle[cell] = ((pos / size).floor() + 0.5) * size
    crops, members = [], []
    for offset in product((-1, 0, 1), repeat=pos.shape[1]):
        near = cells + int((torch.tensor(offset) * stride.cpu()).sum())
        crop = torch.searchsorted(cells, near).clamp(max=len(cells) - 1)
        known = cells[crop] == near  # the adjacent cell has a crop
        point = known[cell].nonzero().squeeze(1)
        of = crop[cell[point]]
        # a point is always in the crop of its own cell, whatever the rounding
        keep = inside(pos[point] - middle[of]) if any(offset) else torch.ones_like(of, dtype=torch.bool)
        crops.append(of[keep])
        members.append(point[keep])
    crop, member = torch.cat(crops), torch.cat(members).sort(stable=True)
    order = crop[member.indices].sort(stable=True).indices  # by crop, then by point
    return list(member.values[order].split(torch.bincount(crop).tolist()))


def normalize_crop(points: PointSet, cfg: CloudSettings) -> PointSet:
    """Each set normalized as `data.normalize` says, then cast to float32, as training and evaluation do it.

    none: positions as they are, but shifted to the origin if they are too far from it for float32. center: minus the
    middle of the bounding box, along the up axis minus the lowest point. unit_sphere: also divided by the largest
    distance from there.
    """
    if cfg.normalize == "none":
        return points.in_type(torch.float32)
    batch, sets = points.batch, points.num_sets
    pos = T.center(replace(points, pos=points.pos.double()), up=cfg.up or "z").pos
    if cfg.normalize == "unit_sphere":
        largest = pos.new_zeros(sets).scatter_reduce(0, batch, torch.linalg.vector_norm(pos, dim=1), "amax")
        pos = pos / torch.where(largest > 0, largest, 1.0)[batch, None]
    return replace(points, pos=pos.float(), feat=points.feat.float(), layout=Cloud())


def _check_one(points: PointSet) -> None:
    if points.num_sets != 1:
        raise ValueError(f"expected one set, got {points.num_sets}")
