"""torch-cluster: farthest points and neighbors in C++ and CUDA."""

from __future__ import annotations

import math

import torch
import torch_cluster
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.fast.picks import distinct, start_first
from pointmix.ops.fast.settle import settled
from pointmix.ops.neighbors import knn_reference
from pointmix.ops.ragged import offsets, set_of, squared_distance


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    order = start_first(ptr, start, len(pos))  # it starts at the first point or at a random one
    share = (out_ptr.diff() - 0.5) / ptr.diff()  # it rounds share * points up
    picks = torch_cluster.fps(unit(pos, pos)[0][order], ptr=ptr, ratio=share.float(), random_start=False)
    return distinct(order[picks], ptr, out_ptr)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    if pos.is_cuda and 4 * k + 64 > 100:  # what `settled` may ask for, and what its kernel takes
        return knn_reference(pos, ptr, query_pos, query_ptr, k)
    return settled(search, pos, ptr, query_pos, query_ptr, k)


def search(pos, ptr, query_pos, query_ptr, k):
    """As `settled` wants it."""
    total = len(query_pos)
    index = torch.zeros(total, k, dtype=torch.int64, device=pos.device)
    d = torch.full((total, k), torch.inf, dtype=pos.dtype, device=pos.device)
    x, queries = unit(pos, query_pos)
    query, near = torch_cluster.knn(x, queries, k, set_of(ptr, len(pos)), set_of(query_ptr, total))
    first = offsets(torch.bincount(query, minlength=total))[:-1]
    slot = torch.arange(len(query), device=pos.device) - first[query]
    index[query, slot] = near
    d[query, slot] = squared_distance(query_pos.t()[:, query], pos.t()[:, near])
    return index, d


def unit(pos: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both at a scale where no distance passes the number that its kernels begin with; powers of two round nothing."""
    largest = max(float(t.abs().max()) for t in (pos, other))
    scale = 2.0 ** -math.ceil(math.log2(max(largest, 1.0)))
    return pos * scale, other * scale
