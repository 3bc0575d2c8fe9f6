"""The nearest points of one ragged batch to the points of another, set by set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, PYTORCH3D, TORCH_CLUSTER, TRITON, Implementation, choose, register
from pointmix.ops.kernels.operators import opaque
from pointmix.ops.neighbors.reference import knn_reference
from pointmix.ops.ragged import check_positions, ptr_to_batch, squared_distance

__all__ = ["ball_query", "interpolate", "interpolation_weights", "knn", "knn_reference"]

register(
    "knn",
    Implementation(NUMBA, "pointmix.ops.neighbors.numba:knn", default=("cpu",), devices=("cpu",)),
    Implementation(
        TRITON,
        "pointmix.ops.neighbors.triton:knn",
        default=("cuda",),
        devices=("cuda",),
        dtypes=(torch.float32,),
        limit=128,
        unit="neighbors",
    ),
    Implementation(
        PYTORCH3D,
        "pointmix.ops.neighbors.pytorch3d:knn",
        default=("cuda",),
        dtypes=(torch.float32,),
        limit=48,
        unit="neighbors",
    ),
    Implementation(
        TORCH_CLUSTER,
        "pointmix.ops.neighbors.torch_cluster:knn",
        limit=48,
        unit="neighbors",
        note="on a GPU it takes 9 neighbors",
    ),
)


@opaque(
    "knn(Tensor pos, Tensor ptr, Tensor query_pos, Tensor query_ptr, int k) -> Tensor",
    lambda pos, ptr, query_pos, query_ptr, k: ptr.new_empty(query_pos.shape[0], k),
)
def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"] | Sequence[int],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"] | Sequence[int],
    k: int,
) -> Int[Tensor, "M k"]:
    """The k points of its set that are nearest to each query, by distance; ties go to the lower index.

    A set with n < k points repeats them from the nearest on: slot j holds what slot j mod n holds.

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
    ptr: Int[Tensor, "B1"] | Sequence[int],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"] | Sequence[int],
    radius: float,
    k: int,
) -> tuple[Int[Tensor, "M k"], Int[Tensor, "M"]]:
    """The nearest points within a radius of each query, at most k, and how many distinct ones there are.

    With 0 < c < k points inside, slot j holds what slot j mod c holds; with none, all slots hold the nearest point of
    the set. Other arguments and errors are those of `knn`. The radius is positive, in the unit of the positions.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"ball_query: radius must be positive, got {radius}")
    index, size = _nearest("ball_query", pos, ptr, query_pos, query_ptr, k)
    inside = _distance(pos, query_pos, index) <= radius * radius
    count = torch.minimum(inside.sum(1), size)  # repetitions do not count
    return repeat_first(index, count.clamp(min=1)), count


def interpolate(
    feat: Float[Tensor, "N C"],
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"] | Sequence[int],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"] | Sequence[int],
    k: int = 3,
) -> Float[Tensor, "M C"]:
    """Features at the queries: the mean over the k nearest points, weighted by 1 / distance^2.

    At a point the result is the feature of that point, or the mean where several coincide. A set with fewer than k
    points uses all of them. Differentiable in `feat`. Other arguments and errors are those of `knn`.

    Source: Qi et al., "PointNet++", NeurIPS 2017, equation 2 (p = 2, k = 3).
    """
    if feat.ndim != 2 or len(feat) != len(pos):
        raise ValueError(f"interpolate: feat must be ({len(pos)}, C), got {tuple(feat.shape)}")
    index, weight = interpolation_weights(pos, ptr, query_pos, query_ptr, k)
    return (weight.to(feat.dtype)[:, None] @ feat[index]).squeeze(1)  # (M, 1, k) @ (M, k, C) -> (M, C)


def interpolation_weights(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"] | Sequence[int],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"] | Sequence[int],
    k: int = 3,
) -> tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]:
    """The points and weights of `interpolate`; the weights of each query add up to 1."""
    index, size = _nearest("interpolate", pos, ptr, query_pos, query_ptr, k)
    d = _distance(pos, query_pos, index)
    nearest = d[:, :1]
    weight = torch.where(d > nearest, nearest / d, 1.0)  # times the least distance, so that none is infinite
    weight *= torch.arange(index.shape[1], device=d.device) < size[:, None]  # repetitions do not count
    return index, weight / weight.sum(1, keepdim=True)


def repeat_first(index: Int[Tensor, "M k"], count: Int[Tensor, "M"]) -> Int[Tensor, "M k"]:
    """Fill the slots from `count` on by repeating the first `count` slots of each row."""
    slot = torch.arange(index.shape[1], device=index.device)
    return index.gather(1, slot % count[:, None])


def _nearest(
    what: str,
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"] | Sequence[int],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"] | Sequence[int],
    k: int,
) -> tuple[Int[Tensor, "M k"], Int[Tensor, "M"]]:
    """Neighbors of each query and the size of its set."""
    pos, ptr = check_positions(what, pos, ptr)
    query_pos, query_ptr = check_positions(f"{what}, queries", query_pos, query_ptr, empty=True)
    if not math.isfinite(k) or k != int(k) or k < 1:
        raise ValueError(f"{what}: k must be an integer of at least 1, got {k}")
    if pos.shape[1] != query_pos.shape[1] or pos.dtype != query_pos.dtype or pos.device != query_pos.device:
        raise ValueError(
            f"{what}: positions and queries must be alike, got D={pos.shape[1]} {pos.dtype} on {pos.device} and "
            f"D={query_pos.shape[1]} {query_pos.dtype} on {query_pos.device}"
        )
    if len(ptr) != len(query_ptr):
        raise ValueError(f"{what}: {len(ptr) - 1} sets of points but {len(query_ptr) - 1} sets of queries")
    if len(query_pos) == 0:
        return ptr.new_zeros(0, int(k)), ptr.new_zeros(0)
    size = ptr.diff()[ptr_to_batch(query_ptr, len(query_pos))]  # (M,)
    index = (choose("knn", pos, size=int(k)) or knn_reference)(pos, ptr, query_pos, query_ptr, int(k))
    return (repeat_first(index, size) if int(size.min()) < k else index), size


def _distance(
    pos: Float[Tensor, "N D"], query_pos: Float[Tensor, "M D"], index: Int[Tensor, "M k"]
) -> Float[Tensor, "M k"]:
    """Squared distances between queries and their neighbors."""
    pos, query_pos = pos.detach(), query_pos.detach()
    if pos.dtype not in (torch.float32, torch.float64):
        pos, query_pos = pos.float(), query_pos.float()
    return squared_distance(query_pos.t()[:, :, None], pos.t()[:, index])  # (D, M, 1), (D, M, k)
