"""Clustering as batched products, without a tensor of M x L x D; the equations are in `pointmix.ops.clustering`."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering.sums import aggregate, dispatch
from pointmix.ops.precision import in_float32
from pointmix.ops.segments import segment_sum
from pointmix.ops.similarity import cosine, length
from pointmix.ops.soft_weights import soft_weights

Similarity = Callable[[Tensor, Tensor], Tensor]  # (..., M, D), (..., L, D) -> (..., M, L)


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


def _joined(
    q: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    row_window: Int[Tensor, "R"] | None,
    center_valid: Bool[Tensor, "S M"] | None,
) -> tuple[Float[Tensor, "R E M L"], Float[Tensor, "R E L"]]:
    """One at the center that each point joins, zero elsewhere, and the weight of the point there."""
    c, q = c.transpose(1, 2), q.transpose(1, 2)  # heads before points
    unit = of_rows(c * (alpha / length(c)[..., None]), row_window)
    near = unit @ q.transpose(-1, -2)  # (R, E, M, L)
    if center_valid is not None:
        absent = ~of_rows(center_valid, row_window)[:, None, :, None]
        near = near.masked_fill(absent, torch.finfo(near.dtype).min / 4)
    member = first_largest(near.detach(), 2)  # |q|, beta and the sigmoid do not change the argmax
    return member, torch.sigmoid((near * member).sum(2) / length(q) + beta)


def first_largest(x: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """One at the largest entry along `dim`, the first of equals, zero elsewhere.

    On a CPU this is computed without an argmax, which is slow there.
    """
    if x.device.type != "cpu":
        return torch.zeros_like(x).scatter_(dim, x.argmax(dim, keepdim=True), 1)
    member = (x - x.amax(dim, keepdim=True)).sign_().add_(1)
    found = member.select(dim, 0)
    for m in range(1, x.shape[dim]):
        here = member.select(dim, m)
        here.addcmul_(here, found, value=-1)
        found = found + here
    return member


@in_float32
def hard(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    row_window: Int[Tensor, "R"] | None,
    valid: Bool[Tensor, "R L"] | None,
    center_valid: Bool[Tensor, "S M"] | None,
    denominator: str,
    unweighted: bool,
) -> Float[Tensor, "R L E D"]:
    """`cluster_hard`."""
    member, weight = _joined(q, c, alpha, beta, row_window, center_valid)
    a, entry, total = _weights(member, weight, valid, denominator, unweighted)
    g = _aggregate(entry, total, v, cv, row_window)  # (S, E, M, D)
    return (a.transpose(-1, -2).to(g.dtype) @ of_rows(g, row_window)).transpose(1, 2)


@in_float32
def assign_soft(
    q: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M E L"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "R E M L"]:
    """The weight of each point at each center; sums to one over the centers.

    Args:
        bias: of each center and point. With fewer rows than R, which it must divide, it repeats.
        similarity: `cosine` or `negative_distance`.
    """
    logits = alpha * similarity(of_rows(c.transpose(1, 2), row_window), q.transpose(1, 2))  # (R, E, M, L)
    if bias is not None:
        logits = (logits.unflatten(0, (-1, bias.shape[0])) + bias.transpose(1, 2)).flatten(0, 1)
    if center_valid is not None:
        logits = logits.masked_fill(~of_rows(center_valid, row_window)[:, None, :, None], -torch.inf)
    return logits.softmax(2)


@in_float32
def soft(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M E L"] | None,
    similarity: Similarity,
    row_window: Int[Tensor, "R"] | None,
    valid: Bool[Tensor, "R L"] | None,
    center_valid: Bool[Tensor, "S M"] | None,
) -> Float[Tensor, "R L E D"]:
    """`cluster_soft`."""
    rows, points, heads, _ = q.shape
    q, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, v))  # (R E, L, D): each head of a row is a row
    near, size, bound = _near(q, c, alpha, similarity, row_window)
    table = None if bias is None else bias.transpose(1, 2).expand(-1, heads, c.shape[1], points)
    table = None if table is None else table.flatten(0, 1).unsqueeze(2)
    exists = of_rows(center_valid, row_window)
    valid, exists = (None if t is None else t.repeat_interleave(heads, 0) for t in (valid, exists))
    a, total = soft_weights(near.unsqueeze(2), size, bound, table, valid=valid, exists=exists)
    gathered, a = aggregate(a.squeeze(2).to(v.dtype), v)
    gathered, total = gathered.unflatten(0, (rows, heads)), total.to(gathered.dtype).view(rows, heads, c.shape[1])
    g = _divided(gathered, total, cv, row_window)  # (S, E, M, D)
    return dispatch(a, of_rows(g, row_window).flatten(0, 1)).unflatten(0, (rows, heads)).transpose(1, 2)


def _near(
    q: Float[Tensor, "RE L D"],
    c: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    similarity: Similarity,
    row_window: Int[Tensor, "R"] | None,
) -> tuple[Float[Tensor, "RE M L"], Float[Tensor, "RE 1 L"], Float[Tensor, "1"]]:
    """Logits of the weights as `soft_weights` takes them: products, lengths of the queries and a bound, which are one
    and infinite for other similarities than the cosine."""
    c = c.transpose(1, 2)  # heads before points
    if similarity is cosine:
        unit = of_rows(c * (alpha / length(c)[..., None]), row_window).flatten(0, 1)
        return torch.bmm(unit, q.transpose(1, 2)), length(q).unsqueeze(1), alpha.abs()
    near = similarity(of_rows(c, row_window).flatten(0, 1), q)
    fits = not torch.is_grad_enabled() and near.dtype == alpha.dtype
    near = near.mul_(alpha) if fits else alpha * near
    return near, near.new_ones(near.shape[0], 1, near.shape[2]), near.new_full((1,), torch.inf)


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
    paper does not give the rule; this is its equation 2 with queries in place of values.
    """
    member, weight = _joined(q, c, alpha, beta, row_window, center_valid)
    _, entry, total = _weights(member, weight, valid, denominator, unweighted)
    return _aggregate(entry, total, q, c, row_window).transpose(1, 2)


def _weights(
    member: Float[Tensor, "R E M L"],
    weight: Float[Tensor, "R E L"],
    valid: Bool[Tensor, "R L"] | None,
    denominator: str,
    unweighted: bool,
) -> tuple[Float[Tensor, "R E M L"], Float[Tensor, "R E M L"], Float[Tensor, "R E M"]]:
    """The weights A of the dispatch, those of the aggregate, and the sum that the aggregate divides by."""
    member = member if valid is None else member * valid[:, None, None]
    a = weight.unsqueeze(2) * member
    entry = member if unweighted else a
    return a, entry, row_sum(entry if denominator == "weights" else member)


def _aggregate(
    a: Float[Tensor, "R E M L"],
    total: Float[Tensor, "R E M"],
    v: Float[Tensor, "R L E D"],
    cv: Float[Tensor, "S M E D"],
    row_window: Int[Tensor, "R"] | None,
) -> Float[Tensor, "S E M D"]:
    """g of each center from the weights of the rows."""
    return _divided(a.to(v.dtype) @ v.transpose(1, 2), total, cv, row_window)


def _divided(
    gathered: Float[Tensor, "R E M D"],
    total: Float[Tensor, "R E M"],
    cv: Float[Tensor, "S M E D"],
    row_window: Int[Tensor, "R"] | None,
) -> Float[Tensor, "S E M D"]:
    """g of each center from the sums over each row."""
    gathered, total = (of_windows(t, row_window, cv.shape[0]) for t in (gathered, total))
    return (cv.transpose(1, 2) + gathered) / (1 + total[..., None])


def row_sum(a: Float[Tensor, "*N L"]) -> Float[Tensor, "*N"]:
    """The sum over the last axis, as a product with ones: on a CPU several times faster if that axis is short."""
    return (a.flatten(0, -2) @ a.new_ones(a.shape[-1])).view(a.shape[:-1])


@overload
def of_rows(x: Tensor, row_window: Int[Tensor, "R"] | None) -> Tensor: ...
@overload
def of_rows(x: None, row_window: Int[Tensor, "R"] | None) -> None: ...
def of_rows(x: Tensor | None, row_window: Int[Tensor, "R"] | None) -> Tensor | None:
    """Of a tensor with one entry per window, the entry for each row."""
    return x if x is None or row_window is None else x.index_select(0, row_window)


def of_windows(x: Tensor, row_window: Int[Tensor, "R"] | None, windows: int) -> Tensor:
    """The sum over the rows of each window."""
    return x if row_window is None else segment_sum(x, row_window, windows)
