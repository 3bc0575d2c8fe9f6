"""Integer operations on the cells of sparse grids: coarse cells, reassignment of the points of dropped cells, the cells
under a kernel, points in window order.

A batch of B grids of `size` (B, 2) has N points on cells (N, 2), at most one point a cell; those of set b are ptr[b] to
ptr[b + 1]. With at most TABLE cells a point, cells are looked up in a table, which is several times faster than
sorting. The cells of larger grids are sorted, so that empty cells cost nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Real
from torch import Tensor

from pointmix.layouts.windows import center_members, window_bounds
from pointmix.ops.dispatch import choose, use_backend
from pointmix.ops.kernels.operators import dynamic_size, opaque
from pointmix.ops.neighbors import knn
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch
from pointmix.ops.segments import segment_sum

TABLE = 16  # cells a point, at most, for a lookup table


def _fake_coarse_cells(
    cell: Tensor, ptr: Tensor, size: Tensor, stride: int, *, keep_cells: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The shapes of what `coarse_cells` returns."""
    cells = dynamic_size()
    return ptr.new_empty(cells, 2), torch.empty_like(ptr), ptr.new_empty(cells), ptr.new_empty(cell.shape[0])


@opaque(
    "coarse_cells(Tensor cell, Tensor ptr, Tensor size, int stride, *, str keep_cells) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _fake_coarse_cells,
)
def coarse_cells(
    cell: Int[Tensor, "N 2"], ptr: Int[Tensor, "B1"], size: Int[Tensor, "B 2"], stride: int, *, keep_cells: str
) -> tuple[Int[Tensor, "Q 2"], Int[Tensor, "B1"], Int[Tensor, "Q"], Int[Tensor, "N"]]:
    """Coarse cells, their ptr, the number of points in each, and the coarse cell of each point, -1 if it was dropped.

    keep_cells="occupied" keeps every coarse cell that holds a point, "area" the fullest ones, as many as the points
    fill (see `SparseGrid.reduce`).
    """
    coarse = -(-size // stride)  # (B, 2)
    cells = cell_count(coarse)
    factors = list(range(1, stride + 1))  # a list: torch.compile passes the ends of an unpacked range alone
    whole = math.lcm(*factors) ** 2 if keep_cells == "area" else 0  # fill ratios as exact integers
    if cells <= TABLE * len(cell) and (fast := choose("coarse_cells", cell)):
        return fast(cell, ptr, size, stride, whole)
    batch = ptr_to_batch(ptr, len(cell))
    key, parent, count = unique(ravel_cells(floor_divide(cell, stride), batch, coarse), cells)
    new_batch, new = unravel_cells(key, coarse)
    if keep_cells == "area":
        room = torch.minimum(size[new_batch] - new * stride, torch.tensor(stride, device=cell.device))
        kept = _fullest(count * (whole // room.prod(1)), whole, new_batch, key, len(coarse))
        new, new_batch, count = new[kept], new_batch[kept], count[kept]
        parent = torch.where(kept, kept.cumsum(0) - 1, -1).index_select(0, parent)
    return new, counts_to_ptr(torch.bincount(new_batch, minlength=len(coarse))), count, parent


@opaque(
    "reassign_dropped(Tensor cell, Tensor ptr, Tensor size, int stride, Tensor new, Tensor new_ptr, Tensor count, "
    "Tensor parent) -> (Tensor, Tensor)",
    lambda cell, ptr, size, stride, new, new_ptr, count, parent: (torch.empty_like(count), torch.empty_like(parent)),
)
def reassign_dropped(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B1"],
    size: Int[Tensor, "B 2"],
    stride: int,
    new: Int[Tensor, "Q 2"],
    new_ptr: Int[Tensor, "B1"],
    count: Int[Tensor, "Q"],
    parent: Int[Tensor, "N"],
) -> tuple[Int[Tensor, "Q"], Int[Tensor, "N"]]:
    """`count` and `parent` of `coarse_cells` with the points of dropped cells reassigned to the nearest kept cell of
    their set (the first one in a tie).

    Args:
        cell, ptr, size, stride: as in `coarse_cells`.
        new, new_ptr, count, parent: its results.
    """
    gone = (parent < 0).nonzero().squeeze(1)
    if len(gone) == 0:
        return count, parent
    coarse = -(-size // stride)
    if cell_count(coarse) <= TABLE * len(cell) and (fast := choose("adopted", cell)):
        return fast(cell, ptr, size, stride, new, new_ptr, count, parent)
    batch = ptr_to_batch(ptr, len(cell))
    key, inverse, dropped = unique(
        ravel_cells(floor_divide(cell[gone], stride), batch[gone], coarse), cell_count(coarse)
    )
    batch, lost = unravel_cells(key, coarse)
    near = nearest_cells(new, new_ptr, lost, batch)
    return count.index_add(0, near, dropped), parent.index_copy(0, gone, near.index_select(0, inverse))


def nearest_cells(
    cell: Int[Tensor, "N 2"], ptr: Int[Tensor, "B1"], place: Real[Tensor, "M 2"], batch: Int[Tensor, "M"]
) -> Int[Tensor, "M"]:
    """The nearest cell of its set to each place, the first one in a tie.

    Args:
        place: rows and columns, in units of the cells.
        batch: the set of each place, ascending.
    """
    place_ptr = counts_to_ptr(torch.bincount(batch, minlength=len(ptr) - 1))
    with use_backend(None):  # single precision cannot tell the cells of large grids apart
        return knn(cell.double(), ptr, place.double(), place_ptr, 1).squeeze(1)


@opaque(
    "kernel_cells(Tensor cell, Tensor ptr, Tensor size, Tensor new, Tensor new_ptr, *, int stride, int kernel, "
    "int padding, str absent) -> Tensor",
    lambda cell, ptr, size, new, new_ptr, *, stride, kernel, padding, absent: cell.new_empty(new.shape[0], kernel**2),
)
def kernel_cells(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B1"],
    size: Int[Tensor, "B 2"],
    new: Int[Tensor, "Q 2"],
    new_ptr: Int[Tensor, "B1"],
    *,
    stride: int,
    kernel: int,
    padding: int,
    absent: str,
) -> Int[Tensor, "Q K"]:
    """The point on each cell under the kernel of each coarse cell, row-major; N where there is none.

    absent="nearest" replaces an absent cell with the nearest point under the same kernel, but not outside the grid.
    """
    cells = cell_count(size)
    if absent == "zero" and cells <= TABLE * len(cell) and (fast := choose("kernel_cells", cell)):
        return fast(cell, ptr, size, new, new_ptr, stride, kernel, padding)
    new_batch = ptr_to_batch(new_ptr, len(new))
    source, outside = kernel_footprint(new, size[new_batch], stride, kernel, padding)
    query = ravel_cells(source, new_batch[:, None], size)
    index = lookup(query, outside, ravel_cells(cell, ptr_to_batch(ptr, len(cell)), size), cells)
    return fill_with_nearest(index, outside, kernel, len(cell)) if absent == "nearest" else index


@opaque(
    "kernel_slots(Tensor cell, Tensor new, Tensor parent, int kernel) -> Tensor",
    lambda cell, new, parent, kernel: torch.empty_like(parent),
)
def kernel_slots(
    cell: Int[Tensor, "N 2"], new: Int[Tensor, "Q 2"], parent: Int[Tensor, "N"], kernel: int
) -> Int[Tensor, "N"]:
    """The position of each point among the Q K^2 of the kernels of the coarse cells, which do not overlap: its own, or
    for a point of another cell the nearest one in the kernel."""
    if fast := choose("kernel_slots", cell):
        return fast(cell, new, parent, kernel)
    corner = new.index_select(0, parent) * kernel
    row, col = (cell - corner).clamp_(0, kernel - 1).unbind(1)
    return torch.add(col, torch.add(row, parent, alpha=kernel), alpha=kernel)


def kernel_footprint(
    new: Int[Tensor, "N 2"], size: Int[Tensor, "N 2"], stride: int, kernel: int, padding: int
) -> tuple[Int[Tensor, "N K 2"], Bool[Tensor, "N K"]]:
    """The cells under the kernel of each coarse cell, row-major, and which of them lie outside the grid."""
    source = torch.arange(kernel, device=new.device) - padding
    source = (new * stride)[:, None] + torch.cartesian_prod(source, source)
    return source, ((source < 0) | (source >= size[:, None])).any(-1)


@opaque(
    "window_order(Tensor cell, Tensor ptr, Tensor size, int windows_per_side, int centers_per_side) "
    "-> (Tensor, Tensor, Tensor)",
    lambda cell, ptr, size, windows_per_side, centers_per_side: (
        ptr.new_empty(cell.shape[0]),
        ptr.new_empty(dynamic_size()),
        ptr.new_empty(cell.shape[0], centers_per_side**2, dtype=torch.bool),
    ),
)
def window_order(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B1"],
    size: Int[Tensor, "B 2"],
    windows_per_side: int,
    centers_per_side: int,
) -> tuple[Int[Tensor, "N"], Int[Tensor, "S"], Bool[Tensor, "N M"]]:
    """Points in window order, the number of points of each window, and which centers each point is pooled into (in
    window order).

    Windows are those of `Grid.plan`, without the empty ones.
    """
    windows = len(size) * windows_per_side**2
    if windows <= TABLE * len(cell) and (fast := choose("window_order", cell)):
        return fast(cell, ptr, size, windows_per_side, centers_per_side)
    batch = ptr_to_batch(ptr, len(cell))
    size = size[batch]  # (N, 2)
    side = size.clamp(max=windows_per_side)  # (N, 2) windows along each side
    window = cell * side // size  # (N, 2)
    start, length = window_bounds(window, size, side)
    _, window_index, counts = unique(
        (batch * windows_per_side + window[:, 0]) * windows_per_side + window[:, 1], windows
    )
    order = torch.argsort(window_index, stable=True)
    return order, counts, center_members((cell - start)[order], length[order], centers_per_side)


def cell_count(size: Int[Tensor, "B 2"]) -> int:
    """Number of cells of all grids, computed in float64 to avoid overflow."""
    return int(size.double().prod(1).sum())


def _same(size: Int[Tensor, "B 2"]) -> list[int] | None:
    """The size of all grids if they have the same, else None."""
    return size[0].tolist() if (size == size[0]).all() else None


def ravel_cells(cell: Int[Tensor, "*N 2"], batch: Int[Tensor, "*#N"], size: Int[Tensor, "B 2"]) -> Int[Tensor, "*N"]:
    """Flat index of each cell, row-major, with the grids of the batch one after the other."""
    if (side := _same(size)) is not None:
        row = torch.add(cell[..., 0], batch, alpha=side[0])
        return torch.add(cell[..., 1], row, alpha=side[1])
    base = F.pad(size.prod(1).cumsum(0), (1, 0))
    return base[batch] + cell[..., 0] * size[batch, 1] + cell[..., 1]


def unravel_cells(key: Int[Tensor, "N"], size: Int[Tensor, "B 2"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N 2"]]:
    """Set and cell of a flat index."""
    if (side := _same(size)) is not None:
        row = key // side[1]
        batch = row // side[0]
        return batch, torch.stack([row - batch * side[0], key - row * side[1]], dim=1)
    end = size.prod(1).cumsum(0)
    batch = torch.searchsorted(end, key, right=True)
    local = key - (end - size.prod(1))[batch]
    width = size[batch, 1]
    return batch, torch.stack([local // width, local % width], dim=1)


@opaque(
    "cells_of_points(Tensor cell, Tensor ptr, int stride, Tensor kept, Tensor kept_ptr, Tensor size) -> Tensor",
    lambda cell, ptr, stride, kept, kept_ptr, size: ptr.new_empty(cell.shape[0]),
)
def cells_of_points(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B1"],
    stride: int,
    kept: Int[Tensor, "Q 2"],
    kept_ptr: Int[Tensor, "B1"],
    size: Int[Tensor, "B 2"],
) -> Int[Tensor, "N"]:
    """Index of the coarse cell of each point among those that are kept; Q where it is not kept.

    Args:
        cell, ptr: of the points.
        kept, kept_ptr, size: coarse cells and the sizes of their grids.
    """
    query = ravel_cells(floor_divide(cell, stride), ptr_to_batch(ptr, len(cell)), size)[:, None]  # (N, 1)
    keys = ravel_cells(kept, ptr_to_batch(kept_ptr, len(kept)), size)
    return lookup(query, torch.zeros_like(query, dtype=torch.bool), keys, cell_count(size)).squeeze(1)


def floor_divide(cell: Int[Tensor, "N 2"], by: int) -> Int[Tensor, "N 2"]:
    """cell // by; for a power of two as a shift, nine times faster on a CPU."""
    return cell >> (by.bit_length() - 1) if by & (by - 1) == 0 else cell // by


def _fake_unique(keys: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The shapes of what `unique` returns."""
    found = keys.new_empty(dynamic_size())
    return found, torch.empty_like(keys), torch.empty_like(found)


@opaque("unique_cells(Tensor keys, SymInt cells) -> (Tensor, Tensor, Tensor)", _fake_unique)
def unique(keys: Int[Tensor, "N"], cells: int) -> tuple[Int[Tensor, "K"], Int[Tensor, "N"], Int[Tensor, "K"]]:
    """Sorted unique keys, the inverse index and the counts, as `torch.unique`; keys are less than `cells`."""
    if cells > TABLE * len(keys):
        return torch.unique(keys, return_inverse=True, return_counts=True)
    count = torch.bincount(keys, minlength=cells)
    found = count.nonzero().squeeze(1)
    rank = (count > 0).cumsum(0) - 1
    return found, rank.index_select(0, keys), count.index_select(0, found)


def lookup(
    query: Int[Tensor, "N K"], absent: Bool[Tensor, "N K"], keys: Int[Tensor, "P"], cells: int
) -> Int[Tensor, "N K"]:
    """Index of each query among the keys, which are less than `cells`; len(keys) where it is absent."""
    if cells > TABLE * len(keys):
        ordered, order = keys.sort()
        at = torch.searchsorted(ordered, query).clamp(max=len(keys) - 1)
        return torch.where((ordered[at] == query) & ~absent, order[at], len(keys))
    table = keys.new_full((cells + 1,), len(keys))  # the last entry stands for absent cells
    table[keys] = torch.arange(len(keys), device=keys.device)
    return table.index_select(0, query.masked_fill(absent, cells).flatten()).view(query.shape)


@opaque(
    "fill_with_nearest(Tensor index, Tensor outside, int kernel, SymInt none) -> Tensor",
    lambda index, outside, kernel, none: torch.empty_like(index),
)
def fill_with_nearest(
    index: Int[Tensor, "N K"], outside: Bool[Tensor, "N K"], kernel: int, none: int
) -> Int[Tensor, "N K"]:
    """Replace each `none` inside the grid with the nearest index of its kernel that is not (the first one in a tie)."""
    slots = torch.arange(kernel, device=index.device)
    slots = torch.cartesian_prod(slots, slots)  # (K, 2)
    order = (slots[:, None] - slots).square().sum(-1).argsort(dim=1, stable=True)  # (K, K)
    row, slot = ((index == none) & ~outside).nonzero(as_tuple=True)  # (M,)
    near = index[row[:, None], order[slot]]  # (M, K)
    first = (near != none).to(torch.uint8).argmax(1, keepdim=True)
    return index.index_put((row, slot), near.gather(1, first).squeeze(1))


def _fullest(
    filled: Int[Tensor, "N"], whole: int, batch: Int[Tensor, "N"], key: Int[Tensor, "N"], num_sets: int
) -> Bool[Tensor, "N"]:
    """The fullest cells of each set, as many as all of `filled` would fill (rounded up); a full cell has `whole`."""
    quota = -(-segment_sum(filled, batch, num_sets) // whole)
    first = F.pad(torch.bincount(batch, minlength=num_sets).cumsum(0), (1, 0))
    local = key - key[first[batch]]  # ties are broken in a pseudorandom order, to spread over the grid
    tie_break = (local * 0x9E3779B1 % 2**32) >> 12
    order = torch.argsort((batch << 42) + (whole - filled) * 2**20 // whole * 2**20 + tie_break, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - first[batch] < quota[batch]
