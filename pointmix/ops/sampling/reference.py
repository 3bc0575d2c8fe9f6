"""The reference form of farthest point sampling."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.ragged import squared_distance, to_dense_batch


def farthest_points_reference(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    """Farthest points of all sets, side by side. After a first pick at `start`,

    d_n = min over the picks p of |x_n - x_p|^2, and the next pick is the first n with the largest d_n.

    Args:
        pos, ptr: B sets in D dimensions.
        out_ptr: the picks of set b are out_ptr[b] to out_ptr[b + 1] of the result.
        start: first pick of each set, counted from the beginning of the set.
    """
    x, valid = to_dense_batch(pos, ptr)
    x = x.movedim(2, 0).contiguous()  # (B, L, D) -> (D, B, L)
    d = torch.where(valid, torch.inf, -2.0).to(pos.dtype)  # (B, L); padding is never picked
    pick, picks = start[:, None], []
    for _ in range(int(out_ptr.diff().max())):
        picks.append(pick)
        d = torch.minimum(d, squared_distance(x, x.gather(2, pick.expand(len(x), -1, -1))))
        d.scatter_(1, pick, -1.0)  # not picked again
        pick = d.argmax(dim=1, keepdim=True)
    index = torch.cat(picks, dim=1) + ptr[:-1, None]  # (B, most picks)
    return index[torch.arange(index.shape[1], device=pos.device) < out_ptr.diff()[:, None]]
