"""How alike two vectors are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def length(x: Float[Tensor, "*N D"], eps: float = 1e-12) -> Float[Tensor, "*N"]:
    """The norm of each vector, at least `eps` or what is the smallest normal number in half precision."""
    return x.norm(dim=-1).clamp(min=max(eps, torch.finfo(x.dtype).tiny))


def cosine(x: Float[Tensor, "*B M D"], y: Float[Tensor, "*B N D"], eps: float = 1e-12) -> Float[Tensor, "*B M N"]:
    """cos[m, n] = x_m . y_n / (max(|x_m|, eps) max(|y_n|, eps)), in [-1, 1]; zero for a zero vector.

    The product is scaled rather than the vectors, which saves a pass over them.
    """
    x = x / length(x, eps).unsqueeze(-1)
    return (x @ y.transpose(-1, -2)) / length(y, eps).unsqueeze(-2)
