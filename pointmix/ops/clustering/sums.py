"""Aggregate and dispatch by the same weights: sums over points, then over centers.

In training the weights are the largest tensors of a mixer. torch forms the gradient of each of the two products apart,
one of them transposed, adds them, and copies the sum into order. Here the second product is added to the first.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.dispatch import has_tangent, requested_backend
from pointmix.ops.precision import autocast_dtype
from pointmix.utils.tracing import traced


def aggregate(
    a: Float[Tensor, "R M L"], v: Float[Tensor, "R L C"]
) -> tuple[Float[Tensor, "R M C"], Float[Tensor, "R M L"]]:
    """a v, and the weights for `dispatch`, which must be the only one to use them: their gradient is written over."""
    if not _trained(a, v):
        return torch.bmm(a, v), a
    dtype = autocast_dtype(a) or a.dtype
    gathered, weights = _Aggregate.apply(a.to(dtype), v.to(dtype))
    return gathered, weights


def dispatch(
    a: Float[Tensor, "R M L"], g: Float[Tensor, "R M K"], plus: Float[Tensor, "R 1 K"] | None = None
) -> Float[Tensor, "R L K"]:
    """a' g + plus."""
    if not _trained(a, g):
        return torch.bmm(a.transpose(1, 2), g) if plus is None else torch.baddbmm(plus, a.transpose(1, 2), g)
    dtype = autocast_dtype(a) or a.dtype
    out: Tensor = _Dispatch.apply(a.to(dtype), g.to(dtype), None if plus is None else plus.to(dtype))
    return out


def _trained(a: Tensor, other: Tensor) -> bool:
    """Whether the weights have a gradient that is computed once, which no transform or compiler has to follow."""
    if not (torch.is_grad_enabled() and a.requires_grad) or traced(a):  # a compiler cannot look into the rest
        return False
    return requested_backend.get() != "torch" and not has_tangent(a, other)


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, v)
        return torch.bmm(a, v), a.view_as(a)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgathered: Tensor, da: Tensor) -> tuple[Tensor, Tensor | None]:
        a, v = ctx.saved_tensors
        dv = torch.bmm(a.transpose(1, 2), dgathered) if ctx.needs_input_grad[1] else None
        return da.baddbmm_(dgathered, v.transpose(1, 2)), dv


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, g: Tensor, plus: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, g)
        points_first = a.transpose(1, 2)
        return torch.bmm(points_first, g) if plus is None else torch.baddbmm(plus, points_first, g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        a, g = ctx.saved_tensors
        dg = torch.bmm(a, dout) if ctx.needs_input_grad[1] else None
        dplus = dout.sum(1, keepdim=True) if ctx.needs_input_grad[2] else None
        return torch.bmm(g, dout.transpose(1, 2)), dg, dplus
