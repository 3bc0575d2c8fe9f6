"""Lengths of queries, without keeping the queries for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.dispatch import has_tangent
from pointmix.ops.linear import linear, rows_product
from pointmix.ops.mlp.pieces import pieces
from pointmix.ops.precision import at_least_float32, autocast_dtype
from pointmix.ops.similarity import least_length, length


def query_length_reference(
    x: Float[Tensor, "N C"], w: Float[Tensor, "ED C"], b: Float[Tensor, "ED"], heads: int
) -> Float[Tensor, "N E"]:
    """|w x + b| for each head."""
    return length(F.linear(x, w, b).unflatten(-1, (heads, -1)))


def query_length(
    x: Float[Tensor, "N C"], w: Float[Tensor, "ED C"], b: Float[Tensor, "ED"], heads: int
) -> Float[Tensor, "N E"]:
    """`query_length_reference`, whose backward pass recomputes the queries.

    The queries are wider than anything else that a mixer's gradient needs. Follows autocast; a compiler and
    forward-mode derivatives get the reference form.
    """
    if (dtype := autocast_dtype(x)) is not None:
        x, w, b = (t.to(dtype) for t in (x, w, b))
    if torch.compiler.is_compiling() or has_tangent(x, w, b):  # the pieces would drop forward-mode derivatives
        return query_length_reference(x, w, b, heads)
    return _QueryLength.apply(x, w, b, heads) if torch.is_grad_enabled() else _in_pieces(x, w, b, heads)


def _in_pieces(
    x: Float[Tensor, "N C"], w: Float[Tensor, "ED C"], b: Float[Tensor, "ED"], heads: int
) -> Float[Tensor, "N E"]:
    sizes = [length(linear(x[part], w, b).unflatten(-1, (heads, -1))) for part in pieces(x, len(w))]
    return sizes[0] if len(sizes) == 1 else torch.cat(sizes) if sizes else x.new_empty(0, heads)


class _QueryLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, heads: int) -> Tensor:
        size = _in_pieces(x, w, b, heads)
        ctx.save_for_backward(x, w, b, size)
        return size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, w, b, size = ctx.saved_tensors
        heads = size.shape[1]
        grad = torch.where(size > least_length(x.dtype), grad / size, 0)
        wide = at_least_float32(x.dtype)  # for sums over many pieces
        dx, dw, db = torch.empty_like(x), torch.zeros_like(w, dtype=wide), torch.zeros_like(b, dtype=wide)[:, None]
        ones = x.new_ones(len(x), 1)  # a product with ones is several times faster than a sum over points
        for part in pieces(x, len(w)):
            q = linear(x[part], w, b).unflatten(-1, (heads, -1))
            dq = q.mul_(grad[part].unsqueeze(-1)).flatten(1)  # d|q| = q/|q| dq
            dx[part] = linear(dq, w.t())
            dw += rows_product(dq, x[part])
            db += rows_product(dq, ones[part])
        return dx, dw.to(w.dtype), db.squeeze(1).to(b.dtype), None
