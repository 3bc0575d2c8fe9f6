"""Clustering as pooling: each point joins one of fewer centers, whose aggregates are the next points.

N points and K centers, packed set by set; m_k is the mean feature of the points around center k.

    queries     q_n = w_q x_n + b_q,  c_k = w_q m_k + b_q
    values      v_n = w_v x_n + b_v,  cv_k = w_v m_k + b_v
    join        point n joins the center of its set with the largest cos(c_k, q_n), the first of equals
    aggregate   y_k = (cv_k + sum of v_n over its points) / (1 + their number)

The choice of a center has no derivative, so the map to queries gets no gradient. Values are linear and weights are
one, hence y_k = w_v ((m_k + sum of x_n) / (1 + number)) + b_v, and values are computed once per center.

Source: FEC (Chen et al., "Neural Clustering based Visual Representation Learning", CVPR 2024), released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.kernels.operators import opaque
from pointmix.ops.largest import largest
from pointmix.ops.precision import at_least_float32, in_float32
from pointmix.ops.ragged import set_bounds
from pointmix.ops.segments import segment_sum
from pointmix.ops.similarity import length


def cluster_pool(
    x: Float[Tensor, "N C"],
    pooled: Float[Tensor, "K C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    wv: Float[Tensor, "A C"],
    bv: Float[Tensor, "A"],
    ptr: Int[Tensor, "B1"],
    center_ptr: Int[Tensor, "B1"],
    *,
    even: bool = False,
    center_valid: Bool[Tensor, "K"] | None = None,
) -> Float[Tensor, "K A"]:
    """The aggregate of each center, without forming the similarities of all centers and points at once.

    Args:
        x: features of the points.
        pooled: mean features of the points around each center.
        wq, bq: linear map to queries.
        wv, bv: linear map to values.
        ptr, center_ptr: set b is points ptr[b] to ptr[b + 1]; each set has at least one center.
        even: all sets have equal numbers of points and of centers. No values are read then, so that it compiles.
        center_valid: false for centers that no point joins. Each set needs at least one that is true.
    """
    center = nearest_center(x, pooled, wq, bq, ptr, center_ptr, even=even, center_valid=center_valid)
    wide = at_least_float32(x.dtype)  # a center may have thousands of points
    number = segment_sum(torch.ones_like(x[:, 0], dtype=wide), center, pooled.shape[0])
    mean = (segment_sum(x.to(wide), center, pooled.shape[0]) + pooled) / (1 + number)[:, None]
    return F.linear(mean.to(x.dtype), wv, bv)


def cluster_pool_reference(
    x: Float[Tensor, "N C"],
    pooled: Float[Tensor, "K C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    wv: Float[Tensor, "A C"],
    bv: Float[Tensor, "A"],
    ptr: Int[Tensor, "B1"],
    center_ptr: Int[Tensor, "B1"],
    *,
    even: bool = False,
    center_valid: Bool[Tensor, "K"] | None = None,
) -> Float[Tensor, "K A"]:
    """The reference form of `cluster_pool`: the equations written out, over all centers and points of a set."""
    outs = []
    for lo, hi, first, last in set_bounds(ptr, center_ptr):
        q, v = F.linear(x[lo:hi], wq, bq), F.linear(x[lo:hi], wv, bv)
        c, cv = F.linear(pooled[first:last], wq, bq), F.linear(pooled[first:last], wv, bv)
        cos = (q / length(q)[:, None]) @ (c / length(c)[:, None]).t()  # (N, K)
        if center_valid is not None:
            cos = torch.where(center_valid[first:last], cos, -2.0)
        member = F.one_hot(cos.argmax(1), last - first).to(v.dtype)  # (N, K)
        outs.append((member.t() @ v + cv) / (1 + member.sum(0))[:, None])
    return torch.cat(outs)


@torch.no_grad()
@in_float32
def nearest_center(
    x: Float[Tensor, "N C"],
    pooled: Float[Tensor, "K C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    ptr: Int[Tensor, "B1"],
    center_ptr: Int[Tensor, "B1"],
    *,
    even: bool = False,
    center_valid: Bool[Tensor, "K"] | None = None,
) -> Int[Tensor, "N"]:
    """The center that each point joins, the first of equals.

    c_k . (w_q x_n + b_q) = (w_q' c_k) . x_n + c_k . b_q, and |q_n| does not change the argmax, so queries of the points
    are not needed. Arguments are those of `cluster_pool`.
    """
    c = F.linear(pooled, wq, bq)
    c = (c / length(c)[:, None]).to(x.dtype)
    key, offset = c @ wq, (c * bq).sum(1)  # (K, C), (K,)
    if center_valid is not None:
        offset = offset.masked_fill(~center_valid, -torch.inf)
    if not even:
        return _largest_of_each(x, key, offset, ptr, center_ptr)
    sets = ptr.numel() - 1
    best = largest(x.unflatten(0, (sets, -1)), key.unflatten(0, (sets, -1)), offset.unflatten(0, (sets, -1)))
    return (best + center_ptr[:-1, None]).flatten()


@opaque(
    "largest_of_each_set(Tensor x, Tensor key, Tensor offset, Tensor ptr, Tensor center_ptr) -> Tensor",
    lambda x, key, offset, ptr, center_ptr: ptr.new_empty(x.shape[0]),
)
def _largest_of_each(
    x: Float[Tensor, "N C"],
    key: Float[Tensor, "K C"],
    offset: Float[Tensor, "K"],
    ptr: Int[Tensor, "B1"],
    center_ptr: Int[Tensor, "B1"],
) -> Int[Tensor, "N"]:
    """`largest` over the centers of each point's set, counted over all sets."""
    every = set_bounds(ptr, center_ptr)
    return torch.cat([largest(x[None, i:j], key[None, k:m], offset[None, k:m])[0] + k for i, j, k, m in every])
