"""How alike two vectors are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def cosine(x: Float[Tensor, "*B M D"], y: Float[Tensor, "*B N D"], eps: float = 1e-12) -> Float[Tensor, "*B M N"]:
    """cos[m, n] = x_m . y_n / (max(|x_m|, eps) max(|y_n|, eps)), in [-1, 1]; zero for a zero vector.

    The product is scaled rather than the vectors, which saves a pass over them.
    """
    x = x / x.norm(dim=-1, keepdim=True).clamp(min=eps)
    return (x @ y.transpose(-1, -2)) / y.norm(dim=-1).clamp(min=eps).unsqueeze(-2)
