"""Similarities of centers and queries: the cosine, and minus the hyperbolic distance."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops import lorentz


def length(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    """The norm of each vector, at least `least_length`."""
    least = least_length(x.dtype)
    return _Length.apply(x, least) if torch.is_grad_enabled() else _length(x, least)


def least_length(dtype: torch.dtype) -> float:
    """1e-12, or the smallest normal number in half precision. Shorter vectors have no gradient."""
    return max(1e-12, torch.finfo(dtype).tiny)


def _length(x: Float[Tensor, "*N D"], least: float) -> Float[Tensor, "*N"]:
    return torch.linalg.vector_norm(x, dim=-1).clamp_(min=least)


class _Length(torch.autograd.Function):
    """torch's own norm needs another pass to mask the gradient of short vectors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float) -> Tensor:
        size = _length(x, least)
        ctx.save_for_backward(x, size)
        ctx.least = least
        return size

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, size = ctx.saved_tensors
        return x * torch.where(size > ctx.least, grad / size, 0).unsqueeze(-1), None


def cosine(c: Float[Tensor, "*N M D"], q: Float[Tensor, "*N L D"]) -> Float[Tensor, "*N M L"]:
    """Cosine of each center with each query."""
    unit = c / length(c)[..., None]
    if c.shape[-2] > q.shape[-1]:  # dividing the queries takes fewer divisions than dividing the products
        return unit @ (q / length(q)[..., None]).transpose(-1, -2)
    return unit @ q.transpose(-1, -2) / length(q)[..., None, :]


def negative_distance(
    c: Float[Tensor, "*N M D"], q: Float[Tensor, "*N L D"], *, kappa: float | Tensor, released: bool = False
) -> Float[Tensor, "*N M L"]:
    """Minus the hyperbolic distance of each center to each query, both clipped to norm 1 and mapped by `expmap0`.

    HCFormer, equation 9, which omits the curvature in acosh, and the sign in the softmax. Computed by one product,
    without a tensor of M x L x D, in at least float32 even under autocast.

    Args:
        kappa: the curvature is -kappa.
        released: map as in the authors' code, which takes the first coordinate of each vector for its time.
    """
    expmap0 = lorentz.expmap0_released if released else lorentz.expmap0
    c, q = (expmap0(lorentz.clip_norm(x), kappa) for x in (c, q))
    return -lorentz.pairwise_distance(c, q, kappa)


def has_kernel(similarity: object) -> bool:
    """Whether the fused kernels have this similarity: `cosine`, or `negative_distance` with keyword arguments bound."""
    return similarity is cosine or (
        isinstance(similarity, partial) and similarity.func is negative_distance and not similarity.args
    )


def alone(c: Float[Tensor, "*N 1 D"], q: Float[Tensor, "*N L D"]) -> Float[Tensor, "*N 1 L"]:
    """Zero, for a single center: the softmax over the centers is one there, whatever the similarity is."""
    return q.new_zeros(*q.shape[:-2], 1, q.shape[-2])
