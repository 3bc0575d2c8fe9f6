"""Even windows on a side, and the cells that average pooling takes for its centers."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def sides_of(size: tuple[int, int], device: torch.device) -> Int[Tensor, "2"]:
    """As a tensor, made on its device: a copy from the host would make a GPU wait."""
    return torch.stack([torch.full((), side, device=device) for side in size])


def window_bounds(
    window: Int[Tensor, "*S"], side: int | Int[Tensor, "*S"], folds: int
) -> tuple[Int[Tensor, "*S"], Int[Tensor, "*S"]]:
    """First position and length of windows when `side` cells are cut into `folds` parts that differ by one at most.

    Position r lies in window r * folds // side, hence window k starts at ceil(k * side / folds).
    """
    start = -(-window * side // folds)
    return start, -(-(window + 1) * side // folds) - start


def reflection(side, folds: int, pad: str):
    """How many windows a side has, how many reflected cells lie before it, and how long it then is.

    Sides are continued by reflection on both ends until `folds` divides them; pad="always" adds one more cell to each
    window where it does already (HCFormer, released code). Where a side is too short to be reflected its cells are the
    windows. `side` is an int or an integer tensor.
    """
    if pad not in ("needed", "always"):
        raise ValueError(f"pad must be 'needed' or 'always', got {pad!r}")
    extra = -side % folds if pad == "needed" else folds - side % folds
    fits = (extra - extra // 2 < side) * 1
    extra = fits * extra
    return fits * folds + (1 - fits) * side, extra // 2, side + extra


def check_options(folds: int, centers: int, pad: str | None, shift: bool, table: int | None, top: int | None) -> None:
    """Raise ValueError for no windows or centers, and where a plan is asked for what only windows of one size have."""
    if folds < 1 or centers < 1:
        raise ValueError(f"plan: folds and centers must be at least 1, got {folds} and {centers}")
    if pad is None and (shift or table is not None or top is not None):
        raise ValueError(f"plan: shift, table and top need pad, got {shift}, {table} and {top} without")


def reflected(
    cell: Int[Tensor, "N 2"], size: Int[Tensor, "N 2"], before: Int[Tensor, "N 2"], padded: Int[Tensor, "N 2"]
) -> tuple[Int[Tensor, "K"], Int[Tensor, "K 2"], Bool[Tensor, "K"]]:
    """The cells of lattices that are continued by reflection.

    Args:
        cell: of each point on its lattice.
        size, before, padded: sides of each point's lattice, cells before it, and sides of the continued one.

    Returns:
        The point of each copy, its cell, and whether it is the point itself.
    """
    if torch.equal(size, padded):
        return torch.arange(len(cell), device=cell.device), cell, torch.ones_like(cell[:, 0], dtype=torch.bool)
    back, after = size - 1 - cell, padded - size - before
    places = torch.stack([before + cell, before - cell, before + size - 1 + back], -1)  # (N, 2, 3)
    real = [torch.ones_like(cell, dtype=torch.bool), (cell > 0) & (cell <= before), (back > 0) & (back <= after)]
    real = torch.stack(real, -1)
    point, i, j = (real[:, 0, :, None] & real[:, 1, None, :]).nonzero(as_tuple=True)
    return point, torch.stack([places[point, 0, i], places[point, 1, j]], 1), (i == 0) & (j == 0)


def pool_members(offset: Int[Tensor, "*N"], length: Int[Tensor, "*N"], centers: int) -> Bool[Tensor, "*N P"]:
    """Which of `centers` adaptive-average-pooling cells hold the position `offset` of a side of `length`.

    Cell i covers floor(i * length / P) to ceil((i + 1) * length / P) - 1; cells overlap where P does not divide.
    """
    cell = torch.arange(centers, device=offset.device)
    offset, length = offset[..., None], length[..., None]
    start = cell * length // centers
    end = -(-(cell + 1) * length // centers)
    return (offset >= start) & (offset < end)


def around(cell: Int[Tensor, "*N 2"], size: Int[Tensor, "*N 2"], centers: int) -> Bool[Tensor, "*N M"]:
    """Which of centers x centers pooling cells of a lattice of `size` hold its `cell`, row-major."""
    members = pool_members(cell, size, centers)  # (*N, 2, P)
    return (members[..., 0, :, None] & members[..., 1, None, :]).flatten(-2)


def member_signature(members: Bool[Tensor, "R L M"], rank: Int[Tensor, "R L"]) -> Int[Tensor, "R M"]:
    """A number for the set of points around each center: sums (over the rows of a window) are equal for equal sets.

    Args:
        members: which slots lie around which center.
        rank: a number for each slot, different for the points of a window.
    """
    mixed = (rank + 1) * 0x1E3779B97F4A7C15  # wraps around; the shifts keep sums of ranks from meeting
    mixed = (mixed ^ (mixed >> 31)) * 0x3F58476D1CE4E5B9
    return (members * (mixed ^ (mixed >> 29))[..., None]).sum(1)


def first_of_equals(signature: Int[Tensor, "S M"]) -> Bool[Tensor, "S M"]:
    """False for centers around which lie the same points as around an earlier one.

    Such centers are the same center; without this, rounding would decide which of them a point joins.
    """
    equal = signature[:, :, None] == signature[:, None, :]  # (S, M, M)
    return ~equal.tril(-1).any(-1)
