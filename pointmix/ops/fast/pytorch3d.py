"""PyTorch3D: farthest points and neighbors in C++ and CUDA, on padded batches."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pytorch3d.ops import knn_points, sample_farthest_points
from torch import Tensor

from pointmix.ops.fast.picks import distinct, start_first
from pointmix.ops.fast.settle import settled
from pointmix.ops.ragged import padded, set_of


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    order, count = start_first(ptr, start, len(pos)), out_ptr.diff()  # it starts at the first point or at a random one
    _, picks = sample_farthest_points(padded(pos[order], ptr)[0], lengths=ptr.diff(), K=count)  # (B, most picks)
    real = torch.arange(picks.shape[1], device=pos.device) < count[:, None]
    return distinct(order[(picks + ptr[:-1, None])[real]], ptr, out_ptr)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    return settled(search, pos, ptr, query_pos, query_ptr, k)


def search(pos, ptr, query_pos, query_ptr, k):
    """As `settled` wants it."""
    (points, _), (queries, real) = padded(pos, ptr), padded(query_pos, query_ptr)
    d, near, _ = knn_points(queries, points, query_ptr.diff(), ptr.diff(), K=k)  # (B, L, k)
    owner = set_of(query_ptr, len(query_pos))
    absent = torch.arange(k, device=pos.device) >= ptr.diff()[owner][:, None]
    return (near + ptr[:-1, None, None])[real], d[real].masked_fill(absent, torch.inf)
