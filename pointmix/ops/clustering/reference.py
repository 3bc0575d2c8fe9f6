"""The reference forms of hard and soft clustering: the equations of `pointmix.ops.clustering`, written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.clustering.products import Similarity, of_rows
from pointmix.ops.segments import segment_sum
from pointmix.ops.similarity import cosine, length


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
    """`cluster_hard`, with every sum of the equations over an explicit tensor of M x L x D."""
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


def cluster_soft_reference(
    q: Float[Tensor, "R L E D"],
    v: Float[Tensor, "R L E D"],
    c: Float[Tensor, "S M E D"],
    cv: Float[Tensor, "S M E D"],
    alpha: Float[Tensor, "1"],
    bias: Float[Tensor, "_ M E L"] | None = None,
    *,
    similarity: Similarity = cosine,
    row_window: Int[Tensor, "R"] | None = None,
    valid: Bool[Tensor, "R L"] | None = None,
    center_valid: Bool[Tensor, "S M"] | None = None,
) -> Float[Tensor, "R L E D"]:
    """`cluster_soft`, with every sum of the equations over an explicit tensor of M x L x D."""
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
