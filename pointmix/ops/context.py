"""Hard clustering from features to features, with values and projection worked out at the centers.

A mixer maps points to queries and values, clusters them (see `clustering`) and projects the outcome. Values and
projection are linear, so they change places with the sums over a cluster:

    sum_n A[m, n] (w_v x_n + b_v) = w_v (sum_n A[m, n] x_n) + b_v sum_n A[m, n]
    w_p (sum_m A[m, n] g_m)       = sum_m A[m, n] (w_p g_m)
    c_m . (w_q x_n + b_q)         = (w_q' c_m) . x_n + c_m . b_q

There are fewer centers than points: this way neither values nor heads' outputs exist per point, nothing is copied head
by head, and of the points' queries only the lengths are needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering import of_rows, of_windows
from pointmix.ops.similarity import length


def context_cluster(
    x: Float[Tensor, "R L C"],
    pooled: Float[Tensor, "S M C"],
    size: Float[Tensor, "R L E"],
    wqv: Float[Tensor, "2ED C"],
    bqv: Float[Tensor, "2ED"],
    wp: Float[Tensor, "K ED"],
    bp: Float[Tensor, "K"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    heads: int,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
) -> Float[Tensor, "R L K"]:
    """wp . cluster_hard(queries, values of x; those of pooled) + bp.

    Args:
        x: features of the points, row by row.
        pooled: mean features of the points around each center.
        size: length of each point's query in each head.
        wqv, bqv: queries are the first half of this linear map, values the second.
        wp, bp: the projection.
        heads: E.
        alpha, beta, row_window, valid, center_valid, denominator: as in `cluster_hard`.
    """
    (wq, wv), (bq, bv) = wqv.chunk(2), bqv.chunk(2)
    centers, channels, per_head = pooled.shape[1], x.shape[2], (heads, -1)

    c = F.linear(pooled, wq, bq).unflatten(-1, per_head).transpose(1, 2)  # (S, E, M, D)
    c = c * (alpha / length(c).unsqueeze(-1))
    key = of_rows(_per_head(c, wq.unflatten(0, per_head)), row_window)  # (R, E, M, C)
    offset = (c * bq.view(heads, 1, -1)).sum(-1)  # (S, E, M)
    if center_valid is not None:
        offset = offset.masked_fill(~center_valid[:, None], -torch.inf)
    offset = of_rows(offset, row_window).flatten(1).unsqueeze(-1)
    near = torch.baddbmm(offset, key.flatten(1, 2), x.transpose(1, 2))  # (R, E M, L) alpha cos |q|
    best, center = near.view(*key.shape[:3], -1).max(dim=2, keepdim=True)  # neither |q| nor beta changes the largest
    bound = alpha.abs()  # rounding must not bring the cosine of a short query past one
    cos = (best / size.transpose(1, 2).unsqueeze(2)).clamp(-bound, bound)  # (R, E, 1, L) times alpha
    weight = torch.sigmoid(cos + beta)
    present = torch.ones_like(weight)
    if valid is not None:
        weight, present = (t * valid[:, None, None] for t in (weight, present))
    member = center == torch.arange(centers, device=x.device)[:, None]  # (R, E, M, L)
    a = (weight * member).to(x.dtype)

    mass = 1 + of_windows(a.sum(-1), row_window, len(pooled))  # (S, E, M)
    count = mass
    if denominator == "count":
        count = 1 + of_windows((present * member).sum(-1).to(a.dtype), row_window, len(pooled))
    a = a.flatten(1, 2)  # (R, E M, L)
    y = of_windows((a @ x).view(*key.shape[:3], channels), row_window, len(pooled))  # (S, E, M, C)
    y = (y + pooled.unsqueeze(1)) / count.unsqueeze(-1)
    g = _per_head(y, wv.unflatten(0, per_head).transpose(1, 2))  # (S, E, M, D)
    g = g + bv.unflatten(0, per_head).unsqueeze(1) * (mass / count).unsqueeze(-1)
    p = of_rows(_per_head(g, wp.t().unflatten(0, per_head)), row_window)  # (R, E, M, K)
    return torch.baddbmm(bp, a.transpose(1, 2), p.flatten(1, 2))


def _per_head(x: Float[Tensor, "S E M A"], w: Float[Tensor, "E A B"]) -> Float[Tensor, "S E M B"]:
    """x @ w of the same head, as one product a head."""
    rows, heads, centers, _ = x.shape
    return (x.transpose(0, 1).flatten(1, 2) @ w).view(heads, rows, centers, -1).transpose(0, 1)
