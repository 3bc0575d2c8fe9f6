"""A scaled residual and the normalization of the sum, which is computed again for the backward pass, not kept.

What is kept, the features and their branch, the layers before keep too. The passes over both are needed anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.utils.tracing import traced

register(
    "residual_norm_backward",
    Implementation(
        NUMBA,
        "pointmix.ops.residual_norm.numba:backward",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32,),
    ),
)


def residual_norm_reference(
    x: Float[Tensor, "N C"],
    branch: Float[Tensor, "N C"],
    gamma: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    sets: int,
    eps: float,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """h = x + gamma * branch, and (h - mean) / sqrt(var + eps) * weight + bias, mean and var over the points and
    channels of each set. Sets have equally many points."""
    h = torch.addcmul(x, branch, gamma)
    return h, _rows(torch.group_norm(_maps(h, sets), 1, weight, bias, eps))


def residual_norm(
    x: Float[Tensor, "N C"],
    branch: Float[Tensor, "N C"],
    gamma: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    sets: int,
    eps: float,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
    """`residual_norm_reference` for tensors that `recomputes` accepts. The backward pass computes h again;
    differentiable once."""
    h, y = _ResidualNorm.apply(x, branch, gamma, weight, bias, sets, eps)
    return h, y


def recomputes(*given: Tensor) -> bool:
    """Whether `residual_norm` takes these tensors and would save memory: for gradients on a CPU, eagerly, without
    broadcasting."""
    if any(map(traced, given)) or has_tangent(*given) or not torch.is_grad_enabled():
        return False
    x, branch, *weights = given
    dtypes = {t.dtype for t in weights} | {torch.promote_types(t.dtype, weights[0].dtype) for t in (x, branch)}
    plain = x.device.type == "cpu" and len(dtypes) == 1 and dtypes <= {torch.float32, torch.float64}
    fits = branch.shape == x.shape and all(t.shape == x.shape[1:] for t in weights)  # kernels read without any check
    return plain and fits and any(t.requires_grad for t in given)


class _ResidualNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor, gamma: Tensor, weight: Tensor, bias: Tensor, sets: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        h = torch.addcmul(x, branch, gamma)
        maps = _maps(h, sets)
        y, mean, rstd = torch.ops.aten.native_group_norm(maps, weight, bias, *maps.shape[:3], 1, eps)
        ctx.save_for_backward(x, branch, gamma, weight, mean, rstd)
        ctx.run = choose("residual_norm_backward", h) if h.dtype == torch.float32 else None
        return h, _rows(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dy: Tensor) -> tuple[Tensor | None, ...]:
        run = backward_reference if ctx.run is None or traced(dh) or traced(dy) else ctx.run
        x, branch, gamma, weight, mean, rstd = ctx.saved_tensors
        return *run(x, branch, gamma, weight, mean, rstd, dh, dy), None, None


def backward_reference(
    x: Float[Tensor, "N C"],
    branch: Float[Tensor, "N C"],
    gamma: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    mean: Float[Tensor, "B 1"],
    rstd: Float[Tensor, "B 1"],
    dh: Float[Tensor, "N C"],
    dy: Float[Tensor, "N C"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, branch, gamma, weight and bias by torch's functions."""
    h, sets = torch.addcmul(x, branch, gamma), len(mean)
    maps = _maps(h, sets)
    dnorm, dweight, dbias = torch.ops.aten.native_group_norm_backward(
        _maps(dy.contiguous(), sets), maps, mean, rstd, weight, *maps.shape[:3], 1, [True, True, True]
    )
    dx = _rows(dnorm) + dh
    return dx.to(x.dtype), (dx * gamma).to(branch.dtype), (dx * branch).sum(0), dweight, dbias


def _maps(x: Float[Tensor, "N C"], sets: int) -> Float[Tensor, "B C L 1"]:
    """The points of each set as a map, channels last."""
    return x.view(sets, len(x) // sets, 1, -1).permute(0, 3, 1, 2)


def _rows(x: Float[Tensor, "B C L 1"]) -> Float[Tensor, "N C"]:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
