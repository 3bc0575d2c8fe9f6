"""Even windows on a side, and the cells that average pooling takes for its centers."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def window_bounds(
    window: Int[Tensor, "*S"], side: int | Int[Tensor, "*S"], folds: int
) -> tuple[Int[Tensor, "*S"], Int[Tensor, "*S"]]:
    """First position and length of windows when `side` cells are cut into `folds` parts that differ by one at most.

    Position r lies in window r * folds // side, hence window k starts at ceil(k * side / folds).
    """
    start = -(-window * side // folds)
    return start, -(-(window + 1) * side // folds) - start


def pool_members(
    offset: Int[Tensor, "*N"], length: Int[Tensor, "*N"], centers: int
) -> Bool[Tensor, "*N P"]:
    """Which of `centers` adaptive-average-pooling cells hold the position `offset` of a side of `length`.

    Cell i covers floor(i * length / P) to ceil((i + 1) * length / P) - 1; cells overlap where P does not divide.
    """
    cell = torch.arange(centers, device=offset.device)
    offset, length = offset[..., None], length[..., None]
    start = cell * length // centers
    end = -(-(cell + 1) * length // centers)
    return (offset >= start) & (offset < end)


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
