"""Batch normalization of training, followed by a residual connection and ReLU.

    y_n = relu((x_n - mean) / sqrt(var + eps) * weight + bias + plus_n)

with the mean and the (biased) variance over all rows n, for each channel.
Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose_trained, register

# torch passes over the rows twice as often
register(
    "batch_norm_relu",
    Implementation(NUMBA, "pointmix.ops.batch_norm.numba:batch_norm_relu", default=("cpu",), devices=("cpu",)),
)


def batch_norm_relu(
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "C"], Float[Tensor, "C"]]:
    """y, and the mean and variance for running statistics, which have no gradients."""
    given = [t for t in (x, weight, bias, plus) if t is not None]
    function = choose_trained("batch_norm_relu", *given)
    y, mean, var = (function or batch_norm_relu_reference)(x, weight, bias, eps, plus)
    return y, mean, var


def compiled_for(*tensors: Tensor) -> bool:
    """Whether `batch_norm_relu` has a compiled form for these tensors, the first of which is x."""
    return choose_trained("batch_norm_relu", *tensors) is not None


def batch_norm_relu_reference(
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "C"], Float[Tensor, "C"]]:
    """`batch_norm_relu` by torch's functions."""
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    y = F.relu(y if plus is None else y + plus, inplace=True)
    var, mean = torch.var_mean(x.detach(), 0, correction=0)
    return y, mean, var
