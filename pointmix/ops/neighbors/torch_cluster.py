"""torch-cluster: nearest neighbors in C++ and CUDA."""

from __future__ import annotations

import math

import torch
import torch_cluster
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.neighbors.reference import knn_reference
from pointmix.ops.neighbors.ties import resolve_ties
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch, squared_distance


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    if pos.is_cuda and 4 * k + 64 > 100:  # `resolve_ties` may ask for 4 k + 64 neighbors, its kernel takes 100
        return knn_reference(pos, ptr, query_pos, query_ptr, k)
    return resolve_ties(search, pos, ptr, query_pos, query_ptr, k)


def search(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """A `Search` for `resolve_ties`."""
    total = len(query_pos)
    index = torch.zeros(total, k, dtype=torch.int64, device=pos.device)
    d = torch.full((total, k), torch.inf, dtype=pos.dtype, device=pos.device)
    x, queries = rescaled(pos, query_pos)
    query, near = torch_cluster.knn(x, queries, k, ptr_to_batch(ptr, len(pos)), ptr_to_batch(query_ptr, total))
    first = counts_to_ptr(torch.bincount(query, minlength=total))[:-1]
    slot = torch.arange(len(query), device=pos.device) - first[query]
    index[query, slot] = near
    d[query, slot] = squared_distance(query_pos.t()[:, query], pos.t()[:, near])
    return index, d


def rescaled(pos: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both scaled by a power of two, which rounds nothing, so that no distance exceeds the large number that
    torch-cluster's kernels start from."""
    largest = max(float(t.abs().max()) for t in (pos, other))
    scale = 2.0 ** -math.ceil(math.log2(max(largest, 1.0)))
    return pos * scale, other * scale
