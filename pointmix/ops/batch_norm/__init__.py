"""Batch normalization of rows in training, a residual and ReLU, in as few passes over the rows as possible.

Ioffe and Szegedy, "Batch Normalization", ICML 2015.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, has_tangent, register
from pointmix.ops.precision import at_least_float32
from pointmix.utils.tracing import traced

# torch passes over the rows twice as often
register(
    "batch_norm_relu",
    Implementation(
        NUMBA,
        "pointmix.ops.batch_norm.numba:batch_norm_relu",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32, torch.float64, torch.bfloat16),
    ),
)


def batch_norm_relu_reference(
    x: Float[Tensor, "N C"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    *,
    momentum: float,
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C"]:
    """y = relu(weight (x - m) / sqrt(v + eps) + bias + plus), m and v the mean and the variance over the rows.

    Args:
        running_mean, running_var: updated in place by m and, with N - 1 in place of N, v.
        momentum: share of m and v in the update.
    """
    y = F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    return F.relu(y if plus is None else y + plus, inplace=True)


def batch_norm_relu(
    x: Float[Tensor, "N C"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    *,
    momentum: float,
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C"]:
    """`batch_norm_relu_reference`, compiled on the CPU; differentiable once."""
    channels = running_mean, running_var, weight, bias
    rows = (x,) if plus is None else (x, plus)
    fits = (
        len(x) > 1  # otherwise torch says what is wrong
        and all(t.dtype == at_least_float32(x.dtype) and t.shape == x.shape[1:] for t in channels)
        and all(t.dtype == x.dtype and t.shape == x.shape for t in rows)
        and all(t.device == x.device and not traced(t) for t in (*rows, *channels))
        and not has_tangent(*rows, weight, bias)
    )
    compiled = choose("batch_norm_relu", x) if fits else None
    y: Tensor = (compiled or batch_norm_relu_reference)(x, *channels, momentum=momentum, eps=eps, plus=plus)
    return y
