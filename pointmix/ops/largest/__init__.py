"""For each point the center of the largest product, without all products in memory at once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, choose, register
from pointmix.ops.precision import autocast_dtype

PIECE = 2**21  # products of a set held at a time; fewer than in the first pool of an image of 224 pixels

# torch's argmax takes several times as long as the products
register(
    "largest",
    Implementation(
        NUMBA,
        "pointmix.ops.largest.numba:largest",
        default=("cpu",),
        devices=("cpu",),
        dtypes=(torch.float32, torch.bfloat16),
    ),
)


def largest(x: Float[Tensor, "B N C"], key: Float[Tensor, "B K C"], offset: Float[Tensor, "B K"]) -> Int[Tensor, "B N"]:
    """argmax over k of key_k . x_n + offset_k, the first of equals. NaN counts as the largest.

    Without gradients. x and key are rounded to the dtype of autocast if that is bfloat16; the compiled form adds their
    products in float32. What is found for a set does not depend on the others.
    """
    compiled = None if torch.compiler.is_exporting() else choose("largest", x)
    if compiled is None:
        return largest_reference(x, key, offset)
    dtype = autocast_dtype(x)
    if dtype == torch.bfloat16:
        x, key = x.to(dtype), key.to(dtype)
    found: Tensor = compiled(x, key.to(x.dtype), offset.float())
    return found


def largest_reference(
    x: Float[Tensor, "B N C"], key: Float[Tensor, "B K C"], offset: Float[Tensor, "B K"]
) -> Int[Tensor, "B N"]:
    """`largest` in pieces of the points."""
    if x.shape[1] == 0:  # perhaps without centers, of which argmax finds none
        return x.new_empty(x.shape[:2], dtype=torch.int64)
    key, offset = key.transpose(1, 2), offset[:, None]
    pieces = x.split(max(1, PIECE // offset.shape[-1]), dim=1)  # independent of the rest of the batch
    return torch.cat([torch.baddbmm(offset, piece, key).argmax(2) for piece in pieces], dim=1)
