"""The maximum over each group of rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.utils.tracing import traced

# the gradient of torch's maximum takes ten passes over the rows
register(
    "group_max",
    Implementation(
        NUMBA,
        "pointmix.ops.group_max.numba:group_max",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32, torch.float64, torch.bfloat16),
    ),
)


def group_max_reference(x: Float[Tensor, "G k C"]) -> Float[Tensor, "G C"]:
    """The maximum over k. The gradient is divided equally among all that are largest."""
    return x.amax(1)


def group_max(x: Float[Tensor, "G k C"]) -> Float[Tensor, "G C"]:
    """`group_max_reference`, in training compiled on the CPU; differentiable once."""
    trained = torch.is_grad_enabled() and x.requires_grad and x.shape[1] > 0
    compiled = choose("group_max", x) if trained and not traced(x) and not has_tangent(x) else None
    y: Tensor = (compiled or group_max_reference)(x)
    return y
