"""Similarities of centers and queries: the cosine, and minus the hyperbolic distance."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops import lorentz


def length(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    """The norm of each vector, at least `least_length`."""
    return _Length.apply(x, least_length(x.dtype))


def least_length(dtype: torch.dtype) -> float:
    """1e-12, or the smallest normal number in half precision. A shorter vector has no gradient."""
    return max(1e-12, torch.finfo(dtype).tiny)


class _Length(torch.autograd.Function):
    """torch's own takes a pass more to leave out the gradient of short vectors."""

    @staticmethod
    def forward(ctx, x, least):
        size = torch.linalg.vector_norm(x, dim=-1).clamp_(min=least)
        ctx.save_for_backward(x, size)
        ctx.least = least
        return size

    @staticmethod
    def backward(ctx, grad):
        x, size = ctx.saved_tensors
        return x * torch.where(size > ctx.least, grad / size, 0).unsqueeze(-1), None


def cosine(c: Float[Tensor, "*N M D"], q: Float[Tensor, "*N L D"]) -> Float[Tensor, "*N M L"]:
    """Cosine of each center with each query."""
    unit = c / length(c)[..., None]
    if c.shape[-2] > q.shape[-1]:  # fewer numbers to divide in the queries than in the products
        return unit @ (q / length(q)[..., None]).transpose(-1, -2)
    return unit @ q.transpose(-1, -2) / length(q)[..., None, :]


def negative_distance(
    c: Float[Tensor, "*N M D"], q: Float[Tensor, "*N L D"], *, kappa: float | Tensor, released: bool = False
) -> Float[Tensor, "*N M L"]:
    """Minus the hyperbolic distance of each center to each query, both clipped to norm 1 and lifted to the hyperboloid.

    HCFormer, equation 9, whose acosh lacks the curvature and whose softmax lacks the sign: points join near centers.
    The product form of the distance; no tensor of M x L x D. In float32 at least, whatever autocast says.

    Args:
        kappa: the curvature is -kappa.
        released: lift as the authors' code does, which takes the first number of each vector for its time.
    """
    expmap0 = lorentz.expmap0_released if released else lorentz.expmap0
    return -lorentz.pairwise_distance(*(expmap0(lorentz.clip_norm(x), kappa) for x in (c, q)), kappa)


def has_kernel(similarity: object) -> bool:
    """Whether the fused kernels have this similarity: `cosine`, or `negative_distance` with keyword arguments bound."""
    return similarity is cosine or (
        isinstance(similarity, partial) and similarity.func is negative_distance and not similarity.args
    )
