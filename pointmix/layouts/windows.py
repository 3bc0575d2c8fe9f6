"""Windows along a side, reflection padding, and the cells that adaptive average pooling takes for a center."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pointmix.ops.kernels.operators import dynamic_size, opaque

Side = TypeVar("Side", int, Tensor)


def size_tensor(size: tuple[int, int], device: torch.device) -> Int[Tensor, "2"]:
    """The size as a tensor, filled on the device: copying it from the host would make a GPU wait."""
    return torch.stack([torch.full((), side, device=device) for side in size])


def window_bounds(
    window: Int[Tensor, "*S"], side: int | Int[Tensor, "*S"], windows_per_side: int | Int[Tensor, "*S"]
) -> tuple[Int[Tensor, "*S"], Int[Tensor, "*S"]]:
    """Start and length of windows when `side` cells are divided into windows whose lengths differ by one at most.

    Cell r lies in window r * windows_per_side // side, hence window k starts at ceil(k * side / windows_per_side).
    """
    start = -(-window * side // windows_per_side)
    return start, -(-(window + 1) * side // windows_per_side) - start


def reflect_padding(side: Side, windows_per_side: int, pad: str) -> tuple[Side, Side, Side]:
    """Number of windows, number of reflected cells before the first cell, and padded length of a side.

    Sides are padded by reflection on both ends until `windows_per_side` divides them; pad="always" adds one more cell
    to each window where it does already (HCFormer, released code). If a side is too short for the reflection, each of
    its cells is a window. `side` is an int or an integer tensor.
    """
    if pad not in ("needed", "always"):
        raise ValueError(f"pad must be 'needed' or 'always', got {pad!r}")
    extra = -side % windows_per_side if pad == "needed" else windows_per_side - side % windows_per_side
    fits = (extra - extra // 2 < side) * 1
    extra = fits * extra
    return fits * windows_per_side + (1 - fits) * side, extra // 2, side + extra


def check_options(
    windows_per_side: int,
    centers_per_side: int,
    pad: str | None,
    shift: bool,
    table_size: int | None,
    global_centers_per_side: int | None,
) -> None:
    """Raise ValueError without windows or centers, and for options that need windows of equal size but no `pad`."""
    if windows_per_side < 1 or centers_per_side < 1:
        got = f"{windows_per_side} and {centers_per_side}"
        raise ValueError(f"plan: windows_per_side and centers_per_side must be at least 1, got {got}")
    if pad is None and (shift or table_size is not None or global_centers_per_side is not None):
        got = f"{shift}, {table_size} and {global_centers_per_side}"
        raise ValueError(f"plan: shift, table_size and global_centers_per_side need pad, got {got} without it")


def _fake_reflect_cells(cell: Tensor, size: Tensor, before: Tensor, padded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The shapes of what `reflect_cells` returns."""
    copies = dynamic_size()
    return cell.new_empty(copies), cell.new_empty(copies, 2), cell.new_empty(copies, dtype=torch.bool)


@opaque(
    "reflect_cells(Tensor cell, Tensor size, Tensor before, Tensor padded) -> (Tensor, Tensor, Tensor)",
    _fake_reflect_cells,
)
def reflect_cells(
    cell: Int[Tensor, "N 2"], size: Int[Tensor, "N 2"], before: Int[Tensor, "N 2"], padded: Int[Tensor, "N 2"]
) -> tuple[Int[Tensor, "K"], Int[Tensor, "K 2"], Bool[Tensor, "K"]]:
    """The cells of grids padded by reflection.

    Args:
        cell: of each point on its grid.
        size, before, padded: of each point's grid: its size, the number of cells before it, and its padded size.

    Returns:
        The point of each copy, its cell on the padded grid, and whether it is the point itself.
    """
    if torch.equal(size, padded):
        return torch.arange(len(cell), device=cell.device), cell, torch.ones_like(cell[:, 0], dtype=torch.bool)
    back, after = size - 1 - cell, padded - size - before
    places = torch.stack([before + cell, before - cell, before + size - 1 + back], -1)  # (N, 2, 3)
    real = [torch.ones_like(cell, dtype=torch.bool), (cell > 0) & (cell <= before), (back > 0) & (back <= after)]
    exists = torch.stack(real, -1)
    point, i, j = (exists[:, 0, :, None] & exists[:, 1, None, :]).nonzero(as_tuple=True)
    return point, torch.stack([places[point, 0, i], places[point, 1, j]], 1), (i == 0) & (j == 0)


def adaptive_pool_members(
    offset: Int[Tensor, "*N"], length: Int[Tensor, "*#N"], centers_per_side: int
) -> Bool[Tensor, "*N P"]:
    """Which of P = centers_per_side adaptive-average-pooling cells hold the position `offset` of a side of `length`.

    Cell i covers floor(i * length / P) to ceil((i + 1) * length / P) - 1; cells overlap where P does not divide.
    """
    cell = torch.arange(centers_per_side, device=offset.device)
    offset, length = offset[..., None], length[..., None]
    start = cell * length // centers_per_side
    end = -(-(cell + 1) * length // centers_per_side)
    return (offset >= start) & (offset < end)


def center_members(
    cell: Int[Tensor, "*N 2"], size: Int[Tensor, "*#N 2"], centers_per_side: int
) -> Bool[Tensor, "*N M"]:
    """Which of M = centers_per_side^2 centers, row-major, each cell of a window of `size` is pooled into."""
    members = adaptive_pool_members(cell, size, centers_per_side)  # (*N, 2, P)
    return (members[..., 0, :, None] & members[..., 1, None, :]).flatten(-2)


def member_signature(members: Bool[Tensor, "R L M"], rank: Int[Tensor, "R L"]) -> Int[Tensor, "R M"]:
    """A hash of the points of each center: sums (over the rows of a window) are equal for equal sets.

    Args:
        members: which slots are pooled into which center.
        rank: a number for each slot, different for the points of a window.
    """
    mixed = (rank + 1) * 0x1E3779B97F4A7C15  # wraps around; the shifts keep sums of ranks from colliding
    mixed = (mixed ^ (mixed >> 31)) * 0x3F58476D1CE4E5B9
    return (members * (mixed ^ (mixed >> 29))[..., None]).sum(1)


def first_occurrence(signature: Int[Tensor, "S M"]) -> Bool[Tensor, "S M"]:
    """False for centers with the same points as an earlier center of the window.

    Such centers have the same features. If both counted, rounding would decide which of them a point joins.
    """
    equal = signature[:, :, None] == signature[:, None, :]  # (S, M, M)
    return ~equal.tril(-1).any(-1)
