"""Integer work on cells of lattices: coarse cells, kept cells that take over the points of dropped ones, the cells that
a kernel covers, points window by window.

A batch of B lattices of `size` (B, 2) has N points, set b those from ptr[b] to ptr[b + 1], on cells (N, 2), at most one
a cell. Where there are no more than TABLE cells a point they are looked up in a table, which is several times faster
than sorting; larger lattices cost nothing more.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from pointmix.layouts.windows import around, window_bounds
from pointmix.ops.dispatch import choose, use_backend
from pointmix.ops.neighbors import knn
from pointmix.ops.ragged import counts_to_ptr as offsets
from pointmix.ops.ragged import ptr_to_batch as set_of
from pointmix.ops.segments import segment_sum

TABLE = 16  # cells a point up to which there is a table


def coarse_cells(
    cell: Int[Tensor, "N 2"], ptr: Int[Tensor, "B+1"], size: Int[Tensor, "B 2"], stride: int, *, keep: str
) -> tuple[Int[Tensor, "N' 2"], Int[Tensor, "B+1"], Int[Tensor, "N'"], Int[Tensor, "N"]]:
    """Coarse cells, their ptr, how many points each holds, and which of them holds each point, -1 if it does not stay.

    keep="occupied" keeps every coarse cell that holds a point, "area" the fullest, as many as the points fill (see
    `SparseGrid.reduce`).
    """
    coarse = -(-size // stride)  # (B, 2)
    cells = number_of(coarse)
    whole = math.lcm(*range(1, stride + 1)) ** 2 if keep == "area" else 0  # integers, so that shares are exact
    if cells <= TABLE * len(cell) and (fast := choose("coarse_cells", cell)):
        return fast(cell, ptr, size, stride, whole)
    batch = set_of(ptr, len(cell))
    key, parent, count = unique(key_of(divided(cell, stride), batch, coarse), cells)
    new_batch, new = from_key(key, coarse)
    if keep == "area":
        room = torch.minimum(size[new_batch] - new * stride, torch.tensor(stride, device=cell.device))
        kept = _fullest(count * (whole // room.prod(1)), whole, new_batch, key, len(coarse))
        new, new_batch, count = new[kept], new_batch[kept], count[kept]
        parent = torch.where(kept, kept.cumsum(0) - 1, -1).index_select(0, parent)
    return new, offsets(torch.bincount(new_batch, minlength=len(coarse))), count, parent


def adopted(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B+1"],
    size: Int[Tensor, "B 2"],
    stride: int,
    new: Int[Tensor, "N' 2"],
    new_ptr: Int[Tensor, "B+1"],
    count: Int[Tensor, "N'"],
    parent: Int[Tensor, "N"],
) -> tuple[Int[Tensor, "N'"], Int[Tensor, "N"]]:
    """`count` and `parent` of `coarse_cells` once the points of dropped cells belong to the nearest kept cell of their
    set (the first of equals).

    Args:
        cell, ptr, size, stride: as in `coarse_cells`.
        new, new_ptr, count, parent: what it returned.
    """
    gone = (parent < 0).nonzero().squeeze(1)
    if len(gone) == 0:
        return count, parent
    coarse = -(-size // stride)
    if number_of(coarse) <= TABLE * len(cell) and (fast := choose("adopted", cell)):
        return fast(cell, ptr, size, stride, new, new_ptr, count, parent)
    batch = set_of(ptr, len(cell))
    key, number, held = unique(key_of(divided(cell[gone], stride), batch[gone], coarse), number_of(coarse))
    batch, lost = from_key(key, coarse)
    lost_ptr = offsets(torch.bincount(batch, minlength=len(coarse)))
    with use_backend(None):  # kernels in single precision would not tell cells of large lattices apart
        near = knn(new.double(), new_ptr, lost.double(), lost_ptr, 1).squeeze(1)
    return count.index_add(0, near, held), parent.index_copy(0, gone, near.index_select(0, number))


def kernel_cells(
    cell: Int[Tensor, "N 2"],
    ptr: Int[Tensor, "B+1"],
    size: Int[Tensor, "B 2"],
    new: Int[Tensor, "N' 2"],
    new_ptr: Int[Tensor, "B+1"],
    *,
    stride: int,
    kernel: int,
    padding: int,
    absent: str,
) -> Int[Tensor, "N' K"]:
    """The point on each cell that the kernel of each coarse cell covers, row-major; N where there is none.

    With absent="nearest" the nearest point that the same kernel has stands in for one that is not there, but not
    outside the lattice.
    """
    cells = number_of(size)
    if absent == "zero" and cells <= TABLE * len(cell) and (fast := choose("kernel_cells", cell)):
        return fast(cell, ptr, size, new, new_ptr, stride, kernel, padding)
    new_batch = set_of(new_ptr, len(new))
    source, outside = covered(new, size[new_batch], stride, kernel, padding)
    query = key_of(source, new_batch[:, None], size)
    index = find(query, outside, key_of(cell, set_of(ptr, len(cell)), size), cells)
    return nearest_slot(index, outside, kernel, len(cell)) if absent == "nearest" else index


def covered(
    new: Int[Tensor, "N 2"], size: Int[Tensor, "N 2"], stride: int, kernel: int, padding: int
) -> tuple[Int[Tensor, "N K 2"], Bool[Tensor, "N K"]]:
    """The cells under the kernel of each coarse cell, row-major, and which of them lie outside the lattice."""
    source = torch.arange(kernel, device=new.device) - padding
    source = (new * stride)[:, None] + torch.cartesian_prod(source, source)
    return source, ((source < 0) | (source >= size[:, None])).any(-1)


def window_order(
    cell: Int[Tensor, "N 2"], ptr: Int[Tensor, "B+1"], size: Int[Tensor, "B 2"], folds: int, centers: int
) -> tuple[Int[Tensor, "N"], Int[Tensor, "S"], Bool[Tensor, "N M"]]:
    """Points window by window, how many each window has, and around which centers each point lies, in that order.

    Windows are those of `Grid.plan`; those without a point do not exist.
    """
    windows = len(size) * folds**2
    if windows <= TABLE * len(cell) and (fast := choose("window_order", cell)):
        return fast(cell, ptr, size, folds, centers)
    batch = set_of(ptr, len(cell))
    size = size[batch]  # (N, 2)
    side = size.clamp(max=folds)  # windows a side
    window = cell * side // size  # (N, 2)
    start, length = window_bounds(window, size, side)
    _, number, counts = unique((batch * folds + window[:, 0]) * folds + window[:, 1], windows)
    order = torch.argsort(number, stable=True)
    return order, counts, around((cell - start)[order], length[order], centers)


def number_of(size: Int[Tensor, "B 2"]) -> int:
    """Cells of all lattices; too many for an integer are still too many."""
    return int(size.double().prod(1).sum())


def _same(size: Int[Tensor, "B 2"]) -> list[int] | None:
    """The sides of all lattices where they are the same, which spares a look at each point's own."""
    return size[0].tolist() if (size == size[0]).all() else None


def key_of(cell: Int[Tensor, "*N 2"], batch: Int[Tensor, "*N"], size: Int[Tensor, "B 2"]) -> Int[Tensor, "*N"]:
    """A number for each cell of all lattices of the batch, laid end to end, row-major."""
    if (side := _same(size)) is not None:
        row = torch.add(cell[..., 0], batch, alpha=side[0])
        return torch.add(cell[..., 1], row, alpha=side[1])
    base = F.pad(size.prod(1).cumsum(0), (1, 0))
    return base[batch] + cell[..., 0] * size[batch, 1] + cell[..., 1]


def from_key(key: Int[Tensor, "N"], size: Int[Tensor, "B 2"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N 2"]]:
    """Set and cell of a key."""
    if (side := _same(size)) is not None:
        row = key // side[1]
        batch = row // side[0]
        return batch, torch.stack([row - batch * side[0], key - row * side[1]], dim=1)
    end = size.prod(1).cumsum(0)
    batch = torch.searchsorted(end, key, right=True)
    local = key - (end - size.prod(1))[batch]
    width = size[batch, 1]
    return batch, torch.stack([local // width, local % width], dim=1)


def divided(cell: Int[Tensor, "N 2"], by: int) -> Int[Tensor, "N 2"]:
    """cell // by; dividing by a power of two as a shift is nine times faster on a CPU."""
    return cell >> (by.bit_length() - 1) if by & (by - 1) == 0 else cell // by


def unique(keys: Int[Tensor, "N"], cells: int) -> tuple[Int[Tensor, "K"], Int[Tensor, "N"], Int[Tensor, "K"]]:
    """The different keys in order, which of them each key is, and how often each occurs; keys lie below `cells`."""
    if cells > TABLE * len(keys):
        return torch.unique(keys, return_inverse=True, return_counts=True)
    count = torch.bincount(keys, minlength=cells)
    found = count.nonzero().squeeze(1)
    rank = (count > 0).cumsum(0) - 1
    return found, rank.index_select(0, keys), count.index_select(0, found)


def find(
    query: Int[Tensor, "N K"], absent: Bool[Tensor, "N K"], keys: Int[Tensor, "P"], cells: int
) -> Int[Tensor, "N K"]:
    """Index of each query among the keys, which lie below `cells`; len(keys) where it is absent."""
    if cells > TABLE * len(keys):
        ordered, order = keys.sort()
        at = torch.searchsorted(ordered, query).clamp(max=len(keys) - 1)
        return torch.where((ordered[at] == query) & ~absent, order[at], len(keys))
    table = keys.new_full((cells + 1,), len(keys))  # the cell past the end is never taken
    table[keys] = torch.arange(len(keys), device=keys.device)
    return table.index_select(0, query.masked_fill(absent, cells).flatten()).view(query.shape)


def nearest_slot(index: Int[Tensor, "N K"], outside: Bool[Tensor, "N K"], kernel: int, none: int) -> Int[Tensor, "N K"]:
    """Slots that are `none`, save those outside, as the nearest of their kernel that is not; the first of equals."""
    slots = torch.arange(kernel, device=index.device)
    slots = torch.cartesian_prod(slots, slots)  # (K, 2)
    order = (slots[:, None] - slots).square().sum(-1).argsort(dim=1, stable=True)  # (K, K)
    row, slot = ((index == none) & ~outside).nonzero(as_tuple=True)  # (M,)
    near = index[row[:, None], order[slot]]  # (M, K)
    first = (near != none).to(torch.uint8).argmax(1, keepdim=True)
    return index.index_put((row, slot), near.gather(1, first).squeeze(1))


def _fullest(
    filled: Int[Tensor, "N"], whole: int, batch: Int[Tensor, "N"], key: Int[Tensor, "N"], sets: int
) -> Bool[Tensor, "N"]:
    """The fullest cells of each set, as many as what is filled adds up to (rounded up); `whole` is a full cell."""
    quota = -(-segment_sum(filled, batch, sets) // whole)
    first = F.pad(torch.bincount(batch, minlength=sets).cumsum(0), (1, 0))
    local = key - key[first[batch]]  # equal shares are taken in an order that jumps about, to spread over the lattice
    spread = (local * 0x9E3779B1 % 2**32) >> 12
    order = torch.argsort((batch << 42) + (whole - filled) * 2**20 // whole * 2**20 + spread, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - first[batch] < quota[batch]
