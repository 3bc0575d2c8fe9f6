"""PyTorch3D: nearest neighbors in C++ and CUDA, on padded batches."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pytorch3d.ops import knn_points
from torch import Tensor

from pointmix.ops.neighbors.ties import resolve_ties
from pointmix.ops.ragged import ptr_to_batch, to_dense_batch


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    return resolve_ties(search, pos, ptr, query_pos, query_ptr, k)


def search(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """A `Search` for `resolve_ties`."""
    (points, _), (queries, valid) = to_dense_batch(pos, ptr), to_dense_batch(query_pos, query_ptr)
    d, near, _ = knn_points(queries, points, query_ptr.diff(), ptr.diff(), K=k)  # (B, L, k)
    size = ptr.diff()[ptr_to_batch(query_ptr, len(query_pos))]  # (M,)
    absent = torch.arange(k, device=pos.device) >= size[:, None]
    return (near + ptr[:-1, None, None])[valid], d[valid].masked_fill(absent, torch.inf)
