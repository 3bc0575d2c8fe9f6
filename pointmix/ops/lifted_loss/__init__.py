"""Cross-entropy of logits that are lifted from coarse points, with its gradient, and no lifted logits in memory.

Point n has the logits z = sum over j of weight[n, j] feat[index[n, j]], and with its label y

    loss = w_y (log sum over k of exp z_k - z_y),    d loss / d z = w_y (softmax z - 1_y)

A point and its gradient are computed at once and stay in the cache of a core; torch passes over all lifted logits a
dozen times, and twice that if it must not store them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.ops.kernels.indices import check_indices
from pointmix.utils.tracing import traced

register(
    "lifted_loss",
    Implementation(
        NUMBA, "pointmix.ops.lifted_loss.numba:lifted_loss", default=("cpu",), devices=("cpu",), dtypes=(torch.float32,)
    ),
)


def lifted_loss_reference(
    feat: Float[Tensor, "S Q K"],
    index: Int[Tensor, "N J"],
    weight: Float[Tensor, "N J"],
    labels: Int[Tensor, "S N"],
    classes: Float[Tensor, "K"],
    ignore: int,
) -> Float[Tensor, ""]:
    """The sum over the points of their cross-entropies, each times the weight of its class.

    Args:
        feat: logits of the coarse points of each set.
        index, weight: the coarse points of its set that each point is a weighted sum of.
        labels: a class for each point, or `ignore`.
        classes: the weight of each class.
    """
    logits = (feat[:, index] * weight[:, :, None]).sum(2)  # (S, N, K)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), classes, ignore_index=ignore, reduction="sum")


def has_lifted_loss(feat: Float[Tensor, "*Q K"]) -> bool:
    """Whether `lifted_loss` computes these logits; the reference form holds those of all points and corners."""
    return not (traced(feat) or has_tangent(feat)) and choose("lifted_loss", feat) is not None


def lifted_loss(
    feat: Float[Tensor, "S Q K"],
    index: Int[Tensor, "N J"],
    weight: Float[Tensor, "N J"],
    labels: Int[Tensor, "S N"],
    classes: Float[Tensor, "K"],
    ignore: int,
) -> Float[Tensor, ""]:
    """`lifted_loss_reference` where `has_lifted_loss` is true. Differentiable once, with respect to `feat`. The loss of
    a labeled point with a logit that is not finite is NaN.

    Raises:
        IndexError: if there is no such coarse point.
        ValueError: if a label is neither a class nor `ignore`, or shapes differ.
    """
    op = choose("lifted_loss", feat)
    assert op is not None
    points, (q, k) = (len(feat), len(index)), feat.shape[1:]
    if weight.shape != index.shape or labels.shape != points or classes.shape != (k,):
        given = f"{tuple(labels.shape)} labels, weights of {len(weight)} points and {len(classes)} classes"
        raise ValueError(f"got {given} for {points} points of {k} classes")
    check_indices(index, q)
    wrong = (labels != ignore) & ((labels < 0) | (labels >= k))
    if wrong.any():
        raise ValueError(f"labels must be from 0 to {k - 1}, or {ignore}, got {labels[wrong][0].item()}")
    loss: Tensor = op(feat, index.long(), weight.to(feat.dtype), labels.long(), classes.to(feat.dtype), ignore)[0]
    return loss
