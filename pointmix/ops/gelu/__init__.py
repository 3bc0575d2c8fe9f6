"""The exact GELU, x Phi(x), and its gradient in one pass.

    gelu'(x) = Phi(x) + x phi(x)

with the density phi and the distribution function Phi of the standard normal distribution.
Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, register
from pointmix.utils.tracing import traced

# torch computes erf and exp twice and passes over the memory three times
register(
    "gelu_backward",
    Implementation(
        NUMBA,
        "pointmix.ops.gelu.numba:gelu_backward_",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32, torch.bfloat16),
    ),
)


def gelu_backward_(
    x: Float[Tensor, "N H"], dy: Float[Tensor, "N H"], total: Float[Tensor, "H"]
) -> Float[Tensor, "N H"]:
    """What the backward pass of y = gelu(x) needs: returns y; in place, dy becomes dx = dy gelu'(x), and the sum of dx
    over the points is added to `total`. Without gradients.

    Args:
        x, dy: contiguous, of one dtype.
        total: contiguous, float32 if x has half precision, else of x's dtype.
    """
    compiled = None if traced(x) else choose("gelu_backward", x)
    y: Tensor = (compiled or gelu_backward_reference_)(x, dy, total)
    return y


def gelu_backward_reference_(
    x: Float[Tensor, "N H"], dy: Float[Tensor, "N H"], total: Float[Tensor, "H"]
) -> Float[Tensor, "N H"]:
    """`gelu_backward_` by torch's functions."""
    dy.copy_(torch.ops.aten.gelu_backward(dy, x))
    total += (dy.t() @ dy.new_ones(len(dy), 1)).squeeze(1)  # several times faster than a sum over points
    return F.gelu(x)
