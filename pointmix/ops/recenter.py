"""Recenters sets that lie far from the origin before their positions are cast to a lower precision."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.ragged import ptr_to_batch


def recenter_for(pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], dtype: torch.dtype) -> Float[Tensor, "N D"]:
    """Positions, in their own precision, that stay distinct when cast to `dtype`.

    If `dtype` has fewer significant bits than `pos`, and more than a third of them would encode the location of a set
    rather than its shape, the middle of its bounding box is moved to the origin: in float32 beyond 203 times its
    longest side, in float16 beyond 10 times. So map coordinates are moved; sets near the origin are not.

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


def take_off_whole(pos: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], Float[Tensor, " D"]]:
    """Positions of one set without the whole numbers in their location, and what was taken off.

    The smallest coordinate of each axis is from 0 to 1 afterwards. In float64 this is exact for map coordinates, so
    that whatever is computed next gives the same bits wherever the set lay, if it was moved by whole numbers. Positions
    in lower precision are left as they are: near the origin they would lose bits.

    Args:
        pos: finite positions.
    """
    if pos.dtype != torch.float64:
        return pos, pos.new_zeros(pos.shape[1])
    offset = pos.amin(0).floor()
    return pos - offset, offset
