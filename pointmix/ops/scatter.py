"""Reductions over segments of a packed batch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def segment_sum(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    """out[s] = sum of x[n] over all n with index[n] == s; zero for an empty segment."""
    return x.new_zeros((size, *x.shape[1:])).index_add(0, index, x)


def segment_mean(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    """out[s] = mean of x[n] over all n with index[n] == s; zero for an empty segment."""
    count = torch.bincount(index, minlength=size).clamp(min=1).to(x.dtype)
    return segment_sum(x, index, size) / count.view(-1, *[1] * (x.ndim - 1))
