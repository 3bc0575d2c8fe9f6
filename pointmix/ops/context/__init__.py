"""Clustering from features to features, with values and projection computed at the centers.

A mixer maps points to queries and values, clusters them (see `clustering`) and projects the result. The values and the
projection are linear, so they commute with the sums over a cluster:

    sum_n A[m, n] (w_v x_n + b_v) = w_v (sum_n A[m, n] x_n) + b_v sum_n A[m, n]
    w_p (sum_m A[m, n] g_m)       = sum_m A[m, n] (w_p g_m)
    c_m . (w_q x_n + b_q)         = (w_q' c_m) . x_n + c_m . b_q

There are fewer centers than points: this way neither values nor outputs of heads are formed per point, nothing is
copied head by head, and only the lengths of the points' queries are needed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering.products import first_largest, of_rows, of_windows, row_sum
from pointmix.ops.clustering.sums import aggregate, dispatch
from pointmix.ops.context import operators  # noqa: F401, defines the operators
from pointmix.ops.dispatch import NUMBA, Implementation, register
from pointmix.ops.precision import in_float32
from pointmix.ops.similarity import length
from pointmix.ops.soft_weights import soft_weights

# of points that lie window by window, see `PackedPlan`
register(
    "context_cluster",
    Implementation(
        NUMBA,
        "pointmix.ops.context.packed:context_cluster",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.bfloat16, torch.float32, torch.float64),
    ),
)


@in_float32
def context_cluster(
    x: Float[Tensor, "R L C"],
    pooled: Float[Tensor, "S M C"],
    size: Float[Tensor, "R L E"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
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
    unweighted: bool = False,
) -> Float[Tensor, "R L K"]:
    """wp . cluster_hard(queries, values of x; those of pooled) + bp.

    Args:
        x: features of the points, row by row.
        pooled: mean features of the points around each center.
        size: length of each point's query in each head.
        wqv, bqv: the linear map to queries (its first half) and values (its second half), QV = 2 E D channels.
        wp, bp: the projection.
        heads: E.
        alpha, beta, row_window, valid, center_valid, denominator, unweighted: as in `cluster_hard`.
    """
    (wq, wv), (bq, bv) = wqv.unflatten(0, (2, heads, -1)), bqv.unflatten(0, (2, heads, -1))  # (E, D, C), (E, D)
    windows, centers, channels = pooled.shape
    member, weight = nearest(x, pooled, size, wq, bq, alpha, beta, row_window=row_window, center_valid=center_valid)
    if valid is not None:
        weight = weight * valid.unsqueeze(1)
    a = (weight.unsqueeze(1) * member).to(x.dtype).flatten(1, 2)  # (R, M E, L)

    entry = a
    if unweighted:
        entry = (member if valid is None else member * valid[:, None, None]).to(x.dtype).flatten(1, 2)
    total = 1 + of_windows(row_sum(entry), row_window, windows).view(windows, centers, heads, 1)
    y = of_windows(entry @ x, row_window, windows).view(windows, centers, heads, channels) + pooled.unsqueeze(2)
    g = torch.bmm(_heads_first(y), wv.transpose(1, 2))  # (E, S M, D)
    if denominator == "count":
        present = member if valid is None else member * valid[:, None, None]
        count = 1 + of_windows(present.sum(-1).to(a.dtype), row_window, windows).unsqueeze(-1)  # (S, M, E, 1)
        g = torch.addcmul(g, bv.unsqueeze(1), _heads_first(total)) / _heads_first(count)
    else:
        g = torch.addcdiv(bv.unsqueeze(1), g, _heads_first(total))
    p = _points_first(torch.bmm(g, wp.t().unflatten(0, (heads, -1)))).view(windows, centers * heads, -1)
    return torch.baddbmm(bp, a.transpose(1, 2), of_rows(p, row_window))


@in_float32
def context_soft(
    x: Float[Tensor, "R L C"],
    pooled: Float[Tensor, "S M C"],
    size: Float[Tensor, "R L E"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
    wp: Float[Tensor, "K ED"],
    base: Float[Tensor, "S K"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M E L"] | None = None,
    *,
    heads: int,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "R L K"]:
    """wp . cluster_soft(queries, values of x; those of pooled) + base of the point's window; cosine similarity.

    Arguments are those of `context_cluster` and `cluster_soft`.
    """
    (wq, wv), (bq, bv) = wqv.unflatten(0, (2, heads, -1)), bqv.unflatten(0, (2, heads, -1))  # (E, D, C), (E, D)
    windows, centers, channels = pooled.shape
    key, offset = keys(pooled, wq, bq, alpha)  # (S, M E, C), (S, M E)
    near = torch.baddbmm(of_rows(offset, row_window).unsqueeze(-1), of_rows(key, row_window), x.transpose(1, 2))
    near, exists = near.unflatten(1, (centers, heads)), of_rows(center_valid, row_window)
    a, total = soft_weights(near, size.transpose(1, 2), alpha.abs(), bias, valid=valid, exists=exists)
    a = a.to(x.dtype).flatten(1, 2)  # (R, M E, L)

    total = 1 + of_windows(total.to(x.dtype), row_window, windows).view(windows, centers, heads, 1)
    gathered, a = aggregate(a, x)
    y = of_windows(gathered, row_window, windows).view(windows, centers, heads, channels) + pooled.unsqueeze(2)
    g = torch.bmm(_heads_first(y), wv.transpose(1, 2))  # (E, S M, D)
    g = torch.addcdiv(bv.unsqueeze(1), g, _heads_first(total))
    p = _points_first(torch.bmm(g, wp.t().unflatten(0, (heads, -1)))).view(windows, centers * heads, -1)
    return dispatch(a, of_rows(p, row_window), of_rows(base, row_window).unsqueeze(1))


def keys(
    pooled: Float[Tensor, "S M C"], wq: Float[Tensor, "E D C"], bq: Float[Tensor, "E D"], alpha: Float[Tensor, "1"]
) -> tuple[Float[Tensor, "S M*E C"], Float[Tensor, "S M*E"]]:
    """Key k and offset o of each center, such that k . x + o = alpha cos(c, q) |q| at a point's features x."""
    windows, centers, channels = pooled.shape
    heads = len(wq)
    c = F.linear(pooled, wq.flatten(0, 1), bq.flatten()).view(windows, centers, heads, -1)  # (S, M, E, D)
    c = c * (alpha / length(c).unsqueeze(-1))
    key = _points_first(torch.bmm(_heads_first(c), wq)).view(windows, centers * heads, channels)
    return key, (c * bq).sum(-1).flatten(1)


@in_float32
def nearest(
    x: Float[Tensor, "R L C"],
    pooled: Float[Tensor, "S M C"],
    size: Float[Tensor, "R L E"],
    wq: Float[Tensor, "E D C"],
    bq: Float[Tensor, "E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> tuple[Float[Tensor, "R M E L"], Float[Tensor, "R E L"]]:
    """One at the center that each point joins, zero elsewhere, and its weight there: `assign_hard` of features."""
    centers, heads = pooled.shape[1], len(wq)
    key, offset = keys(pooled, wq, bq, alpha)  # (S, M E, C), (S, M E)
    if center_valid is not None:
        offset = offset.unflatten(1, (centers, heads))
        offset = offset.masked_fill(~center_valid[..., None], torch.finfo(offset.dtype).min / 4).flatten(1)
    near = torch.baddbmm(of_rows(offset, row_window).unsqueeze(-1), of_rows(key, row_window), x.transpose(1, 2))
    near = near.unflatten(1, (centers, heads))  # (R, M, E, L) alpha cos |q|
    member = first_largest(near.detach(), 1)  # |q| and beta do not change the argmax
    best = (near * member).sum(1)
    bound = alpha.abs()  # rounding must not push the cosine of a short query past one
    return member, torch.sigmoid((best / size.transpose(1, 2)).clamp(-bound, bound) + beta)


def _heads_first(x: Float[Tensor, "S M E A"]) -> Float[Tensor, "E S*M A"]:
    """Heads as the batch of a batched product; a view."""
    return x.flatten(0, 1).transpose(0, 1)


def _points_first(x: Float[Tensor, "E N A"]) -> Float[Tensor, "N E A"]:
    return x.transpose(0, 1).contiguous()
