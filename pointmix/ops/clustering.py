"""Clustering, said once: points gather around the centers of their window, and centers speak back to their points.

R rows of L points, each row of one window; S windows of M centers; E heads of D channels. A row is a window unless
`row_window` maps several rows to one.

    weight      A[m, n] = sigmoid(alpha * cos(c_m, q_n) + beta) at the most similar center m of point n, zero elsewhere
    aggregate   g_m = (cv_m + sum_n A[m, n] v_n) / (1 + sum_n A[m, n])
    dispatch    o_n = sum_m A[m, n] g_m

Source: Context Clusters (Ma et al., ICLR 2023), equations 1 to 3. Unweighted, points enter the aggregate with one in
place of A[m, n], and only the dispatch is weighted; source: FEC (Chen et al., CVPR 2024), released code. Soft
clustering (HCFormer, equations 1 to 3 and 8) has the same aggregate and dispatch; each point spreads over all centers
of its window:

    weight      A[m, n] = softmax over m of alpha * similarity(c_m, q_n) + bias[m, n]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.choice import fused
from pointmix.ops.precision import in_float32
from pointmix.ops.scatter import segment_sum
from pointmix.ops.similarity import cosine, length

Similarity = Callable[[Tensor, Tensor], Tensor]  # (..., M, D), (..., L, D) -> (..., M, L)
DENOMINATORS = ("weights", "count")
NO_KERNEL = "{}: only a kernel takes windows by ptr, and none takes these; see `pointmix.ops.choice.fused`"


@in_float32
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
    member, weight = _joined(q, c, alpha, beta, row_window, center_valid)
    return member.argmax(2, keepdim=True), weight.unsqueeze(2)


def _joined(q, c, alpha, beta, row_window, center_valid):
    """One at the center that each point joins, zero elsewhere, (R, E, M, L), and its weight there (R, E, L)."""
    c, q = c.transpose(1, 2), q.transpose(1, 2)  # heads before points
    unit = of_rows(c * (alpha / length(c)[..., None]), row_window)
    near = unit @ q.transpose(-1, -2)  # (R, E, M, L)
    if center_valid is not None:
        lost = ~of_rows(center_valid, row_window)[:, None, :, None]
        near = near.masked_fill(lost, torch.finfo(near.dtype).min / 4)
    member = first_largest(near.detach(), 2)  # neither |q| nor beta nor the sigmoid changes which is largest
    return member, torch.sigmoid((near * member).sum(2) / length(q) + beta)


def first_largest(x: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """One at the largest along `dim`, the first of equals, zero elsewhere; on a CPU without an index, which is slow."""
    if x.device.type != "cpu":
        return torch.zeros_like(x).scatter_(dim, x.argmax(dim, keepdim=True), 1)
    member = (x - x.amax(dim, keepdim=True)).sign_().add_(1)
    taken = member.select(dim, 0)
    for m in range(1, x.shape[dim]):
        here = member.select(dim, m)
        here.addcmul_(here, taken, value=-1)
        taken = taken + here
    return member


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
    unweighted: bool = False,
    ptr: Int[Tensor, "S+1"] | None = None,
) -> Float[Tensor, "R L E D"]:
    """Hard clustering as batched products, without a tensor of M x L x D.

    Args:
        q, v: queries and values of the points.
        c, cv: queries and values of the centers.
        alpha, beta: scale and offset of the similarity.
        row_window: the window of each row; None if row r is window r.
        valid: false for slots that hold no point. What comes back for them is not meaningful.
        center_valid: false for centers that do not exist. Each window needs one that does.
        denominator: "weights" divides by 1 + the sum of weights, "count" by 1 + the number of points of the center.
        unweighted: points enter the aggregate with weight one, so that either denominator is 1 + their number.
        ptr: points are not in rows but one after the other, (N, E, D), those of window s from ptr[s] to ptr[s + 1].
            Only a kernel takes that.

    Returns:
        The new value of each point.

    Raises:
        ValueError: if there is a ptr, but no kernel takes these windows.
    """
    if row_window is None and fused("cluster_hard", q, c.shape[1], c.shape[3]):
        from pointmix.ops.fast.triton_cluster import cluster_hard as kernel  # Triton need not be installed

        layout = {"ptr": ptr, "valid": valid, "center_valid": center_valid}
        return kernel(q, v, c, cv, alpha, beta, denominator=denominator, unweighted=unweighted, **layout)
    if ptr is not None:
        raise ValueError(NO_KERNEL.format("cluster_hard"))
    return _hard(q, v, c, cv, alpha, beta, row_window, valid, center_valid, denominator, unweighted)


@in_float32
def _hard(q, v, c, cv, alpha, beta, row_window, valid, center_valid, denominator, unweighted):
    member, weight = _joined(q, c, alpha, beta, row_window, center_valid)
    a, entry, total = _weights(member, weight, valid, denominator, unweighted)
    g = _aggregate(entry, total, v, cv, row_window)  # (S, E, M, D)
    return (a.transpose(-1, -2).to(g.dtype) @ of_rows(g, row_window)).transpose(1, 2)


def cluster_hard_reference(
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
    unweighted: bool = False,
) -> Float[Tensor, "R L E D"]:
    """The reference form of `cluster_hard`: every sum of the equations over an explicit tensor of M x L x D."""
    q, v, c, cv = (t.transpose(1, 2) for t in (q, v, c, cv))  # heads before points
    c, center_valid = of_rows(c, row_window), of_rows(center_valid, row_window)
    cos = (c / length(c)[..., None]) @ (q / length(q)[..., None]).transpose(-1, -2)
    s = torch.sigmoid(alpha * cos + beta)  # (R, E, M, L)
    if center_valid is not None:
        s = torch.where(center_valid[:, None, :, None], s, -1.0)
    member = F.one_hot(s.argmax(dim=2), s.shape[2]).movedim(-1, 2).to(s.dtype)  # (R, E, M, L)
    if valid is not None:
        member = member * valid[:, None, None]
    a = s * member
    entry = member if unweighted else a
    total = (entry if denominator == "weights" else member).sum(-1)  # (R, E, M)
    gathered = (entry[..., None] * v[:, :, None]).sum(3)  # (R, E, M, L, D) -> (R, E, M, D)
    if row_window is not None:
        gathered, total = (segment_sum(t, row_window, len(cv)) for t in (gathered, total))
    g = (cv + gathered) / (1 + total[..., None])  # (S, E, M, D)
    o = (a[..., None] * of_rows(g, row_window)[:, :, :, None]).sum(2)  # (R, E, M, L, D) -> (R, E, L, D)
    return o.transpose(1, 2)


@in_float32
def assign_soft(
    q: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "R M E L"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "R E M L"]:
    """How much of each point goes to each center; sums to one over the centers.

    Args:
        bias: of each center and point; of fewer rows than there are where it repeats, as for sets that are alike.
        similarity: `cosine` or `negative_distance`.
    """
    near = similarity(of_rows(c.transpose(1, 2), row_window), q.transpose(1, 2))  # (R, E, M, L)
    fits = not torch.is_grad_enabled() and near.dtype == alpha.dtype
    near = near.mul_(alpha) if fits else alpha * near
    return soft_weights(near, None if bias is None else bias.transpose(1, 2), row_window, center_valid, dim=2)


def soft_weights(logits, bias, row_window, center_valid, *, dim: int):
    """Softmax of logits (R, ..., L) over the centers that exist, along `dim`. May overwrite them without gradients."""
    if bias is not None:
        logits = logits.unflatten(0, (-1, len(bias)))
        fits = not torch.is_grad_enabled() and logits.dtype == bias.dtype
        logits = (logits.add_(bias) if fits else logits + bias).flatten(0, 1)
    if center_valid is not None:
        shape = [len(logits), *[1] * (logits.ndim - 1)]
        shape[dim] = center_valid.shape[1]
        logits = logits.masked_fill(~of_rows(center_valid, row_window).view(shape), -torch.inf)
    return logits.softmax(dim)


def cluster_soft(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "R M E L"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
    ptr: Int[Tensor, "S+1"] | None = None,
) -> Float[Tensor, "R L E D"]:
    """Soft clustering as batched products; arguments are those of `assign_soft` and `cluster_hard`.

    With ptr, the bias is (M, E, N).
    """
    if row_window is None and fused("cluster_soft", q, c.shape[1], c.shape[3]):
        from pointmix.ops.fast.triton_cluster import cluster_soft as kernel  # Triton need not be installed
        from pointmix.ops.fast.triton_cluster import knows

        if knows(similarity):
            layout = {"ptr": ptr, "valid": valid, "center_valid": center_valid}
            return kernel(q, v, c, cv, alpha, bias, similarity=similarity, **layout)
    if ptr is not None:
        raise ValueError(NO_KERNEL.format("cluster_soft"))
    return _soft(q, v, c, cv, alpha, bias, similarity, row_window, valid, center_valid)


@in_float32
def _soft(q, v, c, cv, alpha, bias, similarity, row_window, valid, center_valid):
    layout = {"row_window": row_window, "center_valid": center_valid}
    a = assign_soft(q, c, alpha, bias, similarity=similarity, **layout).to(v.dtype)
    a = a if valid is None else a * valid[:, None, None]
    g = _aggregate(a, row_sum(a), v, cv, row_window)  # (S, E, M, D)
    return (a.transpose(-1, -2) @ of_rows(g, row_window)).transpose(1, 2)


def cluster_soft_reference(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "R M E L"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "R L E D"]:
    """The reference form of `cluster_soft`: every sum of the equations over an explicit tensor of M x L x D."""
    q, v, c, cv = (t.transpose(1, 2) for t in (q, v, c, cv))  # heads before points
    logits = alpha * similarity(of_rows(c, row_window), q)  # (R, E, M, L)
    if bias is not None:
        logits = logits + bias.transpose(1, 2).repeat(len(q) // len(bias), 1, 1, 1)
    if center_valid is not None:
        logits = torch.where(of_rows(center_valid, row_window)[:, None, :, None], logits, -torch.inf)
    a = logits.softmax(2)
    if valid is not None:
        a = a * valid[:, None, None]
    total, gathered = a.sum(-1), (a[..., None] * v[:, :, None]).sum(3)  # (R, E, M, L, D) -> (R, E, M, D)
    if row_window is not None:
        gathered, total = (segment_sum(t, row_window, len(cv)) for t in (gathered, total))
    g = (cv + gathered) / (1 + total[..., None])  # (S, E, M, D)
    return (a[..., None] * of_rows(g, row_window)[:, :, :, None]).sum(2).transpose(1, 2)  # (R, L, E, D)


@in_float32
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
    unweighted: bool = False,
) -> Float[Tensor, "S M E D"]:
    """One step of dynamic centers: each center moves to the aggregate of the queries that chose it.

    Arguments are those of `cluster_hard`. Source: Context Clusters, ablation of fixed against dynamic centers; the
    paper leaves the rule open, this is its equation 2 with queries in place of values.
    """
    member, weight = _joined(q, c, alpha, beta, row_window, center_valid)
    _, entry, total = _weights(member, weight, valid, denominator, unweighted)
    return _aggregate(entry, total, q, c, row_window).transpose(1, 2)


def _weights(member, weight, valid, denominator, unweighted):
    """A of the dispatch and of the aggregate, (R, E, M, L), and the sum that this one divides by, (R, E, M)."""
    member = member if valid is None else member * valid[:, None, None]
    a = weight.unsqueeze(2) * member
    entry = member if unweighted else a
    return a, entry, row_sum(entry if denominator == "weights" else member)


def _aggregate(a, total, v, cv, row_window):
    """g (S, E, M, D) from the weights of the rows."""
    gathered = a.to(v.dtype) @ v.transpose(1, 2)  # (R, E, M, D)
    gathered, total = (of_windows(t, row_window, cv.shape[0]) for t in (gathered, total))
    return (cv.transpose(1, 2) + gathered) / (1 + total[..., None])


def row_sum(a: Float[Tensor, "*N L"]) -> Float[Tensor, "*N"]:
    """The sum over the last axis, as a product with ones: on a CPU several times faster where that axis is short."""
    return (a.flatten(0, -2) @ a.new_ones(a.shape[-1])).view(a.shape[:-1])


def of_rows(x: Tensor | None, row_window: Int[Tensor, "R"] | None) -> Tensor | None:
    """What belongs to the window of each row."""
    return x if x is None or row_window is None else x.index_select(0, row_window)


def of_windows(x: Tensor, row_window: Int[Tensor, "R"] | None, windows: int) -> Tensor:
    """The sum over the rows of each window."""
    return x if row_window is None else segment_sum(x, row_window, windows)
