"""The MLP of a block, point by point, without its hidden layer ever in memory as a whole.

The hidden layer is up to eight times as wide as the input; writing it out and reading it back takes longer than
computing it. On a CPU the points go through in pieces whose hidden layer fits the cache, and in the backward pass the
hidden layer is computed again rather than kept, which takes no longer and halves the memory that training needs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 2**19  # numbers of the hidden layer that a piece has on a CPU: 2 MiB of float32


def mlp_plain(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
) -> Float[Tensor, "N K"]:
    """y = w2 gelu(w1 x + b1) + b2, with the exact (erf) GELU."""
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


def mlp(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
) -> Float[Tensor, "N K"]:
    """`mlp_plain` in pieces, recomputed in the backward pass. Follows autocast; a compiler gets the plain form."""
    if torch.compiler.is_compiling():  # it fuses and recomputes by itself, and would unroll the pieces
        return mlp_plain(x, w1, b1, w2, b2)
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, w1, b1, w2, b2 = (t.to(dtype) for t in (x, w1, b1, w2, b2))
    piece = max(CACHED // len(w1), 1) if device == "cpu" else max(len(x), 1)
    return _Pieces.apply(x, w1, b1, w2, b2, piece)


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w1, b1, w2, b2, piece):
        ctx.save_for_backward(x, w1, b1, w2)
        ctx.piece = piece
        y = x.new_empty(len(x), len(w2))
        for xi, yi in zip(x.split(piece), y.split(piece), strict=True):
            torch.addmm(b2, F.gelu(F.linear(xi, w1, b1)), w2.t(), out=yi)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, w1, b1, w2 = ctx.saved_tensors
        dx, dw1, db1, dw2 = (torch.zeros_like(t) for t in (x, w1, b1, w2))
        for xi, dyi, dxi in zip(x.split(ctx.piece), dy.split(ctx.piece), dx.split(ctx.piece), strict=True):
            h = F.linear(xi, w1, b1)
            dw2.addmm_(dyi.t(), F.gelu(h))
            dh = torch.ops.aten.gelu_backward(dyi @ w2, h)
            dw1.addmm_(dh.t(), xi)
            db1.add_(dh.sum(0))
            torch.mm(dh, w1, out=dxi)
        return dx, dw1, db1, dw2, dy.sum(0), None
