"""The nearest points of one ragged batch to the points of another, set by set."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.choice import fastest
from pointmix.ops.ragged import checked, set_of, spans, squared_distance

PIECE = 2**22  # distances held at a time


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """The k points of its set that are nearest to each query, by distance; of equally near ones the lower index first.

    A set with n < k points gives all of them and then again from the nearest on: slot j holds what slot j mod n holds.

    Args:
        pos, ptr: B sets in D dimensions, of at least one point each.
        query_pos, query_ptr: the queries of each set, possibly none.
        k: neighbors of each query, at least 1.

    Returns:
        Indices into pos.

    Raises:
        ValueError: if shapes, dtypes, devices, ptr or k do not fit, or a position is not finite.
    """
    return _nearest("knn", pos, ptr, query_pos, query_ptr, k)[0]


def ball_query(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    radius: float,
    k: int,
) -> tuple[Int[Tensor, "M k"], Int[Tensor, "M"]]:
    """The nearest points within a radius of each query, at most k, and how many different ones there are.

    With 0 < c < k points inside, slot j holds what slot j mod c holds; with none, all slots hold the nearest point of
    the set. Other arguments and errors are those of `knn`.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"ball_query: radius must be positive, got {radius}")
    index, size = _nearest("ball_query", pos, ptr, query_pos, query_ptr, k)
    inside = _distance(pos, query_pos, index) <= radius * radius
    count = torch.minimum(inside.sum(1), size)  # repetitions do not count
    return repeated(index, count.clamp(min=1)), count


def interpolate(
    feat: Float[Tensor, "N C"],
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int = 3,
) -> Float[Tensor, "M C"]:
    """Features at the queries: the mean of those of the k nearest points, weighted by 1 / distance^2.

    At a point the result is the feature of that point, or the mean where several coincide. A set with fewer points
    uses what it has. Differentiable in `feat`. Other arguments and errors are those of `knn`.
    """
    if feat.ndim != 2 or len(feat) != len(pos):
        raise ValueError(f"interpolate: feat must be ({len(pos)}, C), got {tuple(feat.shape)}")
    index, size = _nearest("interpolate", pos, ptr, query_pos, query_ptr, k)
    d = _distance(pos, query_pos, index)
    nearest = d[:, :1]
    weight = torch.where(d > nearest, nearest / d, 1.0)  # times the least distance, so that none is infinite
    weight *= torch.arange(index.shape[1], device=d.device) < size[:, None]  # repetitions do not count
    weight = (weight / weight.sum(1, keepdim=True)).to(feat.dtype)
    return (weight[:, None] @ feat[index]).squeeze(1)  # (M, 1, k) @ (M, k, C) -> (M, C)


def knn_reference(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """The reference form of `knn`: sort the distances to all points of the set. Slots beyond those are not set."""
    index = ptr.new_zeros(len(query_pos), k)
    for begin, end, first, last in spans(ptr, query_ptr):
        x = pos[begin:end].t()[:, None]  # (D, 1, n)
        step = max(PIECE // (end - begin), 1)
        for row in range(first, last, step):
            rows = slice(row, min(row + step, last))
            d = squared_distance(query_pos[rows].t()[:, :, None], x)  # (m, n)
            near = d.sort(dim=1, stable=True).indices[:, :k]
            index[rows, : near.shape[1]] = near + begin
    return index


def repeated(index: Int[Tensor, "M k"], count: Int[Tensor, "M"]) -> Int[Tensor, "M k"]:
    """Slots from count on get what the first ones hold, again and again."""
    slot = torch.arange(index.shape[1], device=index.device)
    return index.gather(1, slot % count[:, None])


def _nearest(what, pos, ptr, query_pos, query_ptr, k):
    """Neighbors (M, k) and the size of each query's set (M,)."""
    pos, query_pos = checked(what, pos, ptr), checked(f"{what}, queries", query_pos, query_ptr, empty=True)
    if not math.isfinite(k) or k != int(k) or k < 1:
        raise ValueError(f"{what}: k must be a whole number of at least 1, got {k}")
    if pos.shape[1] != query_pos.shape[1] or pos.dtype != query_pos.dtype or pos.device != query_pos.device:
        raise ValueError(
            f"{what}: positions and queries must be alike, got D={pos.shape[1]} {pos.dtype} on {pos.device} and "
            f"D={query_pos.shape[1]} {query_pos.dtype} on {query_pos.device}"
        )
    if len(ptr) != len(query_ptr):
        raise ValueError(f"{what}: {len(ptr) - 1} sets of points but {len(query_ptr) - 1} sets of queries")
    if len(query_pos) == 0:
        return ptr.new_zeros(0, int(k)), ptr.new_zeros(0)
    size = ptr.diff()[set_of(query_ptr, len(query_pos))]  # (M,)
    index = (fastest("knn", pos, int(k)) or knn_reference)(pos, ptr, query_pos, query_ptr, int(k))
    return (repeated(index, size) if int(size.min()) < k else index), size


def _distance(pos, query_pos, index):
    """Squared distances (M, k) between queries and their neighbors."""
    pos, query_pos = pos.detach(), query_pos.detach()
    if pos.dtype not in (torch.float32, torch.float64):
        pos, query_pos = pos.float(), query_pos.float()
    return squared_distance(query_pos.t()[:, :, None], pos.t()[:, index])  # (D, M, 1), (D, M, k)
