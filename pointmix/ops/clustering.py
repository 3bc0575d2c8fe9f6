"""Clustering, said once: points gather around the centers of their window, and centers speak back to their points.

R rows of L points, each row of one window; S windows of M centers; E heads of D channels. A row is a window unless
`row_window` maps several rows to one.

    weight      A[m, n] = sigmoid(alpha * cos(c_m, q_n) + beta) at the most similar center m of point n, zero elsewhere
    aggregate   g_m = (cv_m + sum_n A[m, n] v_n) / (1 + sum_n A[m, n])
    dispatch    o_n = sum_m A[m, n] g_m

Source: Context Clusters (Ma et al., ICLR 2023), equations 1 to 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.scatter import segment_sum
from pointmix.ops.similarity import cosine

DENOMINATORS = ("weights", "count")


def assign_hard(
    q: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> tuple[Int[Tensor, "R E 1 L"], Float[Tensor, "R E 1 L"]]:
    """The most similar center of each point (the first of equals) and the weight of the point there, in (0, 1)."""
    c, center_valid = _of_rows(c, row_window), _of_rows(center_valid, row_window)
    logit = alpha * cosine(c.transpose(1, 2), q.transpose(1, 2)) + beta  # (R, E, M, L)
    if center_valid is not None:
        logit = logit.masked_fill(~center_valid[:, None, :, None], -torch.inf)
    best, center = logit.max(dim=2, keepdim=True)  # the sigmoid is monotonic: only the kept weights need it
    return center, torch.sigmoid(best)


def cluster_hard(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
) -> Float[Tensor, "R L E D"]:
    """Hard clustering as batched products, without a tensor of M x L x D, keeping little for the backward pass.

    Args:
        q, v: queries and values of the points.
        c, cv: queries and values of the centers.
        alpha, beta: scale and offset of the similarity.
        row_window: the window of each row; None if row r is window r.
        valid: false for slots that hold no point. What comes back for them is not meaningful.
        center_valid: false for centers that do not exist. Each window needs one that does.
        denominator: "weights" divides by 1 + the sum of weights, "count" by 1 + the number of points of the center.

    Returns:
        The new value of each point.
    """
    if not torch.compiler.is_compiling():  # a compiler decides for itself what to keep
        return _Hard.apply(q, v, c, cv, alpha, beta, row_window, valid, center_valid, denominator)
    center, weight = assign_hard(q, c, alpha, beta, row_window=row_window, center_valid=center_valid)
    a, total = _weights(center, weight, c.shape[1], valid, denominator)
    g = _aggregate(a, total, v, cv, row_window)  # (S, E, M, D)
    return _dispatch(a, g, row_window)


def cluster_hard_plain(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
) -> Float[Tensor, "R L E D"]:
    """The plain twin of `cluster_hard`: every sum of the equations over an explicit tensor of M x L x D."""
    q, v, c, cv = (t.transpose(1, 2) for t in (q, v, c, cv))  # heads before points
    c, center_valid = _of_rows(c, row_window), _of_rows(center_valid, row_window)
    cos = F.normalize(c, dim=-1, eps=1e-12) @ F.normalize(q, dim=-1, eps=1e-12).transpose(-1, -2)
    s = torch.sigmoid(alpha * cos + beta)  # (R, E, M, L)
    if center_valid is not None:
        s = torch.where(center_valid[:, None, :, None], s, -1.0)
    member = F.one_hot(s.argmax(dim=2), s.shape[2]).movedim(-1, 2).to(s.dtype)  # (R, E, M, L)
    if valid is not None:
        member = member * valid[:, None, None]
    a = s * member
    total = (a if denominator == "weights" else member).sum(-1)  # (R, E, M)
    gathered = (a[..., None] * v[:, :, None]).sum(3)  # (R, E, M, L, D) -> (R, E, M, D)
    if row_window is not None:
        gathered, total = (segment_sum(t, row_window, len(cv)) for t in (gathered, total))
    g = (cv + gathered) / (1 + total[..., None])  # (S, E, M, D)
    o = (a[..., None] * _of_rows(g, row_window)[:, :, :, None]).sum(2)  # (R, E, M, L, D) -> (R, E, L, D)
    return o.transpose(1, 2)


def update_centers(
    q: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    denominator: str = "weights",
) -> Float[Tensor, "S M E D"]:
    """One step of dynamic centers: each center moves to the aggregate of the queries that chose it.

    Arguments are those of `cluster_hard`. Source: Context Clusters, ablation of fixed against dynamic centers; the
    paper leaves the rule open, this is its equation 2 with queries in place of values.
    """
    center, weight = assign_hard(q, c, alpha, beta, row_window=row_window, center_valid=center_valid)
    a, total = _weights(center, weight, c.shape[1], valid, denominator)
    return _aggregate(a, total, q, c, row_window).transpose(1, 2)


class _Hard(torch.autograd.Function):
    """The products of `cluster_hard`; for the backward pass it keeps its inputs and one center and weight a point."""

    @staticmethod
    def forward(ctx, q, v, c, cv, alpha, beta, row_window, valid, center_valid, denominator):
        center, weight = assign_hard(q, c, alpha, beta, row_window=row_window, center_valid=center_valid)
        a, total = _weights(center, weight, c.shape[1], valid, denominator)
        g = _aggregate(a, total, v, cv, row_window)
        total = _of_windows(total, row_window, len(c))  # (S, E, M)
        ctx.save_for_backward(q, v, c, alpha, center.to(torch.int16), weight, g, total, row_window, valid)
        ctx.denominator = denominator
        return _dispatch(a, g, row_window)

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        q, v, c, alpha, center, weight, g, total, row_window, valid = ctx.saved_tensors
        q, v, c, do = (t.transpose(1, 2) for t in (q, v, c, do))  # heads before points
        dtype, windows = q.dtype, len(c)
        member = _member(center, c.shape[2], valid)  # (R, E, M, L)
        a = (weight * member).to(dtype)

        # o = A^T g and g = (cv + A v) / (1 + total)
        dg = _of_windows(a @ do, row_window, windows)  # (S, E, M, D)
        dcv = (dg / (1 + total[..., None])).to(dtype)
        dtotal = _of_rows(-(dcv * g).sum(-1), row_window)  # (R, E, M)
        dnum = _of_rows(dcv, row_window)
        dv = a.transpose(-1, -2) @ dnum
        da = _of_rows(g, row_window).to(dtype) @ do.transpose(-1, -2) + dnum @ v.transpose(-1, -2)  # (R, E, M, L)
        if ctx.denominator == "weights":
            da = da + dtotal[..., None]
        dlogit = (da * member).sum(2, keepdim=True) * weight * (1 - weight)  # (R, E, 1, L)

        # logit = alpha cos + beta at the chosen center, cos = (c / |c|) . (q / |q|)
        length = c.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # (S, E, M, 1)
        unit = _of_rows(c / length, row_window)  # (R, E, M, D)
        scale = 1 / q.norm(dim=-1).clamp(min=1e-12).unsqueeze(2)  # (R, E, 1, L)
        cos = ((unit @ q.transpose(-1, -2)) * member).sum(2, keepdim=True) * scale
        dcos = alpha * dlogit
        b = (dcos * member).to(dtype)  # (R, E, M, L)
        along = (dcos * cos * scale).transpose(-1, -2) * q
        dq = (b.transpose(-1, -2) @ unit - along) * scale.transpose(-1, -2)
        dc = (b * scale).to(dtype) @ q - (b * cos).sum(-1, keepdim=True) * unit
        dc = _of_windows(dc, row_window, windows) / length
        dq, dv, dc, dcv = (d.transpose(1, 2).to(dtype) for d in (dq, dv, dc, dcv))
        dalpha, dbeta = (d.sum().view(1).to(alpha.dtype) for d in (dlogit * cos, dlogit))
        return dq, dv, dc, dcv, dalpha, dbeta, None, None, None, None


def _member(center, centers, valid):
    """(R, E, M, L): which center each point chose."""
    member = center == torch.arange(centers, device=center.device, dtype=center.dtype)[:, None]
    return member if valid is None else member & valid[:, None, None]


def _weights(center, weight, centers, valid, denominator):
    """A (R, E, M, L) and the sum that the aggregate divides by, (R, E, M)."""
    member = _member(center, centers, valid)
    a = weight * member
    return a, a.sum(-1) if denominator == "weights" else member.sum(-1).to(a.dtype)


def _aggregate(a, total, v, cv, row_window):
    """g (S, E, M, D) from the weights of the rows."""
    gathered = a.to(v.dtype) @ v.transpose(1, 2)  # (R, E, M, D)
    gathered, total = (_of_windows(t, row_window, len(cv)) for t in (gathered, total))
    return (cv.transpose(1, 2) + gathered) / (1 + total[..., None])


def _dispatch(a, g, row_window):
    """o (R, L, E, D)."""
    return (a.transpose(-1, -2).to(g.dtype) @ _of_rows(g, row_window)).transpose(1, 2)


def _of_rows(x: Tensor | None, row_window: Int[Tensor, "R"] | None) -> Tensor | None:
    """What belongs to the window of each row."""
    return x if x is None or row_window is None else x.index_select(0, row_window)


def _of_windows(x: Tensor, row_window: Int[Tensor, "R"] | None, windows: int) -> Tensor:
    """The sum over the rows of each window."""
    return x if row_window is None else segment_sum(x, row_window, windows)
