"""Context clustering of a group of neighbors around one center, their mean (PointMLP-CoC).

With one center there is no assignment: neighbor n has the weight s_n = sigmoid(alpha cos(q_n, c) + beta), and

    g   = (v + sum_n s_n v_n) / (1 + sum_n s_n),   v the mean of the v_n
    y_n = x_n + Wp (s_n g) + bp

Values and projection are linear and the weights in g sum to one, so both are computed once per group:

    g = Wv (sum_n w_n x_n) + bv,  w_n = (1 / k + s_n) / (1 + sum_n s_n),   y_n = x_n + s_n (Wp g) + bp

Ma et al., "Image as Set of Points", ICLR 2023, sections 3.2 and 4.2.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose_trained, has_tangent, register
from pointmix.ops.precision import autocast_dtype, without_autocast
from pointmix.ops.similarity import length
from pointmix.utils.tracing import traced

# torch passes over the neighbors more than twice as often
register(
    "cluster_group",
    Implementation(NUMBA, "pointmix.ops.group_cluster.numba:cluster_group", default=("cpu",), devices=("cpu",)),
)


def cluster_group_reference(
    x: Float[Tensor, "G k C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    wv: Float[Tensor, "D C"],
    bv: Float[Tensor, "D"],
    wp: Float[Tensor, "C D"],
    bp: Float[Tensor, "C"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
) -> Float[Tensor, "G k C"]:
    """The first two equations, with a value and a projection for each neighbor.

    Args:
        x: features of the neighbors of each group.
        wq, bq, wv, bv: the maps to queries and values.
        wp, bp: the projection.
        alpha, beta: scale and offset of the similarity.
    """
    q, v = F.linear(x, wq, bq), F.linear(x, wv, bv)  # (G, k, D)
    center, value = q.mean(1, keepdim=True), v.mean(1, keepdim=True)  # (G, 1, D)
    cos = (F.normalize(q, dim=-1) * F.normalize(center, dim=-1)).sum(-1, keepdim=True)
    s = torch.sigmoid(alpha * cos + beta)  # (G, k, 1)
    g = (value + (s * v).sum(1, keepdim=True)) / (1 + s.sum(1, keepdim=True))  # (G, 1, D)
    return x + F.linear(s * g, wp, bp)


def cluster_group(
    x: Float[Tensor, "G k C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    wv: Float[Tensor, "D C"],
    bv: Float[Tensor, "D"],
    wp: Float[Tensor, "C D"],
    bp: Float[Tensor, "C"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    overwrite: bool = False,
) -> Float[Tensor, "G k C"]:
    """`cluster_group_reference` with values and projections of the centers only; `overwrite` may reuse x's memory."""
    weights = wq, bq, wv, bv, wp, bp, alpha, beta
    half = autocast_dtype(x) == x.dtype == torch.bfloat16 and wq.dtype == torch.float32
    half = half and not traced(x) and not has_tangent(x)
    with without_autocast(x) if half else nullcontext():
        if function := choose_trained("cluster_group", *(weights if half else (x, *weights))):
            out: Tensor = function(x, *weights)
            return out
    q = F.linear(x, wq, bq)
    center = q.mean(1)  # (G, D)
    center = center * (alpha / length(center)[:, None])
    s = torch.sigmoid((q * center[:, None]).sum(-1) / length(q) + beta)  # (G, k)
    w = (s + 1 / x.shape[1]) / (1 + s.sum(1, keepdim=True))
    g = F.linear((w[:, None].to(x.dtype) @ x).squeeze(1), wv, bv)
    p = F.linear(g, wp)[:, None]  # (G, 1, C)
    y = torch.addcmul(x, s[..., None].to(p.dtype), p, out=x if overwrite else None)
    return y.add_(bp)
