"""Positions in fewer digits: sets far from the origin are moved to it before the cast, not after."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.ragged import ptr_to_batch


def recenter_for(pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], dtype: torch.dtype) -> Float[Tensor, "N D"]:
    """Positions, in their own precision, that a cast to `dtype` keeps apart.

    A set is moved such that the middle of its bounding box is the origin, if `dtype` has fewer digits than `pos` and
    more than a third of them would say where the set is rather than what it looks like: in float32 beyond 203 times its
    longest side, in float16 beyond 10 times. So map coordinates are moved, while sets about the origin, and all that
    has the precision already, stay as they are.

    Args:
        pos: finite positions of B sets.
        ptr: where each set begins and ends.
        dtype: what they will be cast to.
    """
    eps = torch.finfo(dtype).eps
    if eps <= torch.finfo(pos.dtype).eps:
        return pos
    batch = ptr_to_batch(ptr, len(pos))
    index, sets = batch[:, None].expand_as(pos), ptr.numel() - 1
    wide = pos.detach().to(torch.promote_types(pos.dtype, torch.float32))
    low = wide.new_full((sets, pos.shape[1]), torch.inf).scatter_reduce(0, index, wide, "amin")
    high = wide.new_full((sets, pos.shape[1]), -torch.inf).scatter_reduce(0, index, wide, "amax")
    longest = (high - low).amax(1, keepdim=True)  # (B, 1)
    farthest = torch.maximum(low.abs(), high.abs()).amax(1, keepdim=True)
    moved = (longest > 0) & (farthest > longest * eps ** (-1 / 3))
    middle = torch.where(moved, low + (high - low) / 2, 0)  # (B, D)
    return pos - middle.to(pos.dtype)[batch]
