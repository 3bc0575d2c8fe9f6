"""Lengths of vectors, for cosines."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def length(x: Float[Tensor, "*N D"], eps: float = 1e-12) -> Float[Tensor, "*N"]:
    """The norm of each vector, at least `eps` or what is the smallest normal number in half precision."""
    return x.norm(dim=-1).clamp(min=max(eps, torch.finfo(x.dtype).tiny))

