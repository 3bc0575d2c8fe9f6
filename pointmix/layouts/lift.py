"""Lifting: features of coarse points at the finer points that they were reduced from. Linear in the features.

A lift is made by the `lift` of a layout, and every lift offers the same:

    __call__                    coarse features (Q, C) to features of the N fine points, (N, C)
    split                       lifts of some of the fine points each, which are all of them together
    num_points                  N

On a grid it is `torch.nn.functional.interpolate` by the stride: cell i of a side is at (i + 0.5) / stride - 0.5, in
cells of the coarse grid. Where the last coarse cell is not full, the excess is cropped, so that weights depend on the
distance to neighboring cells only, not on the size of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.layouts.base import Slice
from pointmix.layouts.cells import cell_count, floor_divide, lookup, nearest_cells, ravel_cells
from pointmix.ops.neighbors import interpolation_weights
from pointmix.ops.ragged import ptr_to_batch
from pointmix.ops.upsample import upsample

LiftMode = Literal["bilinear", "nearest"]


@runtime_checkable
class Lift(Protocol):
    """See the module's docstring."""

    @property
    def num_points(self) -> int: ...
    def __call__(self, feat: Float[Tensor, "Q C"]) -> Float[Tensor, "N C"]: ...
    def split(self, points: int) -> list[tuple[Slice, Lift]]:
        """Lifts of the same coarse features to about `points` fine points each, and where these are among all."""


@dataclass(frozen=True)
class GridLift:
    """From full grids to full grids that are `stride` times finer; the last cells may be cropped.

    Args:
        size: rows and columns of the fine grid.
        sets: the first set whose points are computed, and the one after the last; None for all.
        rows: the rows of the fine grid that are computed, from a multiple of the stride.
    """

    num_sets: int
    size: tuple[int, int]
    stride: int
    mode: LiftMode
    sets: tuple[int, int] | None = None
    rows: tuple[int, int] | None = None

    @property
    def num_points(self) -> int:
        (begin, end), (low, high) = self.sets or (0, self.num_sets), self.rows or (0, self.size[0])
        return (end - begin) * (high - low) * self.size[1]

    def __call__(self, feat: Float[Tensor, "Q C"]) -> Float[Tensor, "N C"]:
        height, width = (-(-side // self.stride) for side in self.size)
        x = feat.view(self.num_sets, height, width, -1)
        x = x if self.sets is None else x[slice(*self.sets)]
        low, high = self.rows or (0, self.size[0])
        first = max(low // self.stride - 1, 0)  # one more row on either side, for bilinear weights
        x = x[:, first : -(-high // self.stride) + 1]
        if self.mode == "bilinear":
            y = upsample(x, self.stride)
        else:
            y = x.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
        skip = low - first * self.stride
        return y[:, skip : skip + high - low, : self.size[1]].flatten(0, 2)

    def of_one_set(self, like: Float[Tensor, "Q C"]) -> IndexLift:
        """The lift of each set, as sums over its coarse cells; weights are of the dtype of `like`."""
        width = -(-self.size[1] // self.stride)
        y, row_weight = _corners(self.size[0], self.stride, self.mode, like)
        z, column_weight = _corners(self.size[1], self.stride, self.mode, like)
        index = y[:, None, :, None] * width + z[None, :, None]  # (H, W, corners, corners)
        weight = row_weight[:, None, :, None] * column_weight[None, :, None]
        return IndexLift(index.flatten(2).flatten(0, 1), weight.flatten(2).flatten(0, 1))

    def split(self, points: int) -> list[tuple[Slice, Lift]]:
        per_set, width, stride = self.size[0] * self.size[1], self.size[1], self.stride
        step = self.size[0] if per_set <= points else max(points // width // stride, 1) * stride  # rows
        together = max(points // per_set, 1)  # sets
        parts: list[tuple[Slice, Lift]] = []
        for begin in range(0, self.num_sets, together):
            sets = (begin, min(begin + together, self.num_sets))
            for low in range(0, self.size[0], step):
                high = min(low + step, self.size[0])
                first = begin * per_set + low * width
                part = GridLift(self.num_sets, self.size, stride, self.mode, sets, (low, high))
                parts.append((slice(first, first + part.num_points), part))
        return parts


def _corners(
    side: int, stride: int, mode: LiftMode, like: Float[Tensor, "Q C"]
) -> tuple[Int[Tensor, "n J"], Float[Tensor, "n J"]]:
    """The coarse cells that each cell along a side is a sum of, and their weights."""
    cell, last = torch.arange(side, device=like.device), -(-side // stride) - 1
    if mode == "nearest":
        return (cell // stride)[:, None], like.new_ones(side, 1)
    place = (cell.to(like.dtype) + 0.5) / stride - 0.5
    low = place.floor()
    index = torch.stack([low, low + 1], dim=1).long().clamp(0, last)
    return index, torch.stack([1 - (place - low), place - low], dim=1)


@dataclass(frozen=True, eq=False)
class IndexLift:
    """Weighted sums of K coarse points for each fine point.

    Args:
        index: (N, K) coarse points.
        weight: (N, K), the sum of each row is 1.
    """

    index: Int[Tensor, "N K"]
    weight: Float[Tensor, "N K"]

    @property
    def num_points(self) -> int:
        return len(self.index)

    def __call__(self, feat: Float[Tensor, "Q C"]) -> Float[Tensor, "N C"]:
        if self.index.shape[1] == 1:
            return F.embedding(self.index[:, 0], feat)
        return F.embedding_bag(self.index, feat, per_sample_weights=self.weight.to(feat.dtype), mode="sum")

    def split(self, points: int) -> list[tuple[Slice, Lift]]:
        total, step = len(self.index), max(points, 1)
        places = [slice(low, min(low + step, total)) for low in range(0, total, step)]
        return [(place, IndexLift(self.index[place], self.weight[place])) for place in places]


def cell_lift(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B1"],
    size: Int[Tensor, "B 2"],
    coarse: Int[Tensor, "Q 2"],
    coarse_ptr: Int[Tensor, "B1"],
    stride: int,
    mode: LiftMode,
    dtype: torch.dtype,
) -> IndexLift:
    """From some cells of coarse grids to some cells of grids that are `stride` times finer: the weights of `GridLift`
    over the coarse cells that are present, divided by their sum. Where none is present, the nearest one of the set.

    Args:
        cell, ptr, size: of the fine grids.
        coarse, coarse_ptr: cells of the coarse grids.
        dtype: of the weights.
    """
    batch, coarse_size = ptr_to_batch(ptr, len(cell)), -(-size // stride)
    if mode == "nearest":
        corner, weight = floor_divide(cell, stride)[:, None], cell.new_ones(len(cell), 1).to(dtype)
    else:
        twice = 2 * cell + 1 - stride  # 2 * stride * position of the cell's center in coarse cells
        low = torch.div(twice, 2 * stride, rounding_mode="floor")
        high_part = (twice - 2 * stride * low).to(dtype) / (2 * stride)  # (N, 2)
        part = torch.stack([1 - high_part, high_part], dim=1)  # (N, 2 corners, 2 axes)
        last = coarse_size[batch] - 1
        side = torch.stack([low.clamp(min=0), torch.minimum(low + 1, last)], dim=1)
        corner = torch.stack([side[:, [0, 0, 1, 1], 0], side[:, [0, 1, 0, 1], 1]], dim=2)  # (N, 4, 2)
        weight = part[:, [0, 0, 1, 1], 0] * part[:, [0, 1, 0, 1], 1]  # (N, 4)
    keys = ravel_cells(coarse, ptr_to_batch(coarse_ptr, len(coarse)), coarse_size)
    query = ravel_cells(corner, batch[:, None], coarse_size)
    index = lookup(query, torch.zeros_like(query, dtype=torch.bool), keys, cell_count(coarse_size))
    present = index < len(coarse)
    weight = weight * present
    total = weight.sum(1, keepdim=True)
    first = index.gather(1, present.to(torch.uint8).argmax(1, keepdim=True))  # a NaN of another set times 0 is NaN
    index = torch.where(present, index, first)
    lost = (total == 0).squeeze(1).nonzero().squeeze(1)
    weight = weight / torch.where(total > 0, total, 1)
    if len(lost):
        near = nearest_cells(coarse, coarse_ptr, (cell[lost].double() + 0.5) / stride - 0.5, batch[lost])
        index = index.index_copy(0, lost, near[:, None].expand(-1, index.shape[1]))
        one = torch.arange(index.shape[1], device=index.device) == 0
        weight = weight.index_copy(0, lost, one.to(dtype).repeat(len(lost), 1))
    return IndexLift(index, weight)


def point_lift(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    coarse_pos: Float[Tensor, "Q D"],
    coarse_ptr: Int[Tensor, "B1"],
    mode: LiftMode,
) -> IndexLift:
    """From coarse points to any points of the same sets: by the inverse squared distance to the three nearest ones, see
    `pointmix.ops.neighbors.interpolate`; mode "nearest" takes the nearest one."""
    return IndexLift(*interpolation_weights(coarse_pos, coarse_ptr, pos, ptr, 1 if mode == "nearest" else 3))
