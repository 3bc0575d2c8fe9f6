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
