"""Indices are checked before kernels get them, which read and write memory without any check."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def check_indices(index: Int[Tensor, "*shape"], size: int) -> None:
    """Refuse indices that are not of `size` rows.

    Raises:
        IndexError: if an index is not from 0 to size - 1.
    """
    low, high = torch.stack(index.aminmax()).tolist() if index.numel() else (0, -1)
    if low < 0 or high >= size:
        raise IndexError(f"expected indices from 0 to {size - 1}, got {low} to {high}")
