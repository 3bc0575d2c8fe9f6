"""The MLP of a block, in pieces of the points whose hidden layer fits the cache.

The hidden layer is up to eight times as wide as the input, and writing it to memory and reading it back takes longer
than computing it. On a CPU it is therefore formed for one piece of the points at a time. The backward pass recomputes
it, which takes no longer and saves most of the memory of training; it is kept (before the GELU) for wide inputs only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.gelu import gelu_backward_
from pointmix.ops.linear import linear
from pointmix.ops.precision import at_least_float32, autocast_dtype

CACHED = 2**21  # numbers in the hidden layer of a piece on a CPU: 8 MiB of float32
NARROW = 128  # up to this many channels, recomputing the hidden layer is faster than reading it back


def mlp_reference(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    scale: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """y = scale * (w2 gelu(w1 x + b1) + b2) + plus, with the exact (erf) GELU."""
    y = F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2) * scale
    return y if plus is None else plus + y


def mlp(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    scale: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None = None,
) -> Float[Tensor, "N K"]:
    """`mlp_reference` in pieces. Follows autocast; a compiler and float16 get the reference form."""
    if (dtype := autocast_dtype(x)) is not None:
        x, w1, b1, w2, b2 = (t.to(dtype) for t in (x, w1, b1, w2, b2))
    # a compiler fuses and recomputes by itself; in float16 the pieces' sums, formed before the scale, would overflow
    if torch.compiler.is_compiling() or x.dtype == torch.float16:
        return mlp_reference(x, w1, b1, w2, b2, scale, plus)
    piece = points_per_piece(x, len(w1))
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (x, w1, b1, w2, b2, scale))
    return _Pieces.apply(x, w1, b1, w2, b2, scale, plus, piece, trained and x.shape[1] > NARROW)


def points_per_piece(x: Float[Tensor, "N C"], width: int) -> int:
    """The number of points of a piece, so that its layer of this width about fits the cache."""
    pieces = round(len(x) * width / CACHED) if x.device.type == "cpu" else 1
    return max(-(-len(x) // max(pieces, 1)), 1)


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        scale: Tensor,
        plus: Tensor | None,
        piece: int,
        keep: bool,
    ) -> Tensor:
        dtype = torch.result_type(x, scale)
        dtype = dtype if plus is None else torch.promote_types(dtype, plus.dtype)
        y = x.new_empty(len(x), len(w2), dtype=dtype)
        hidden = x.new_empty(len(x), len(w1)) if keep else None
        scaled_w2, scaled_b2 = ((t * s).to(t.dtype) for t, s in ((w2, scale[:, None]), (b2, scale)))
        for start in range(0, len(x), piece):
            part = slice(start, start + piece)
            if hidden is not None:
                h = F.gelu(torch.addmm(b1, x[part], w1.t(), out=hidden[part]))
            else:
                h = linear(x[part], w1, b1, gelu=True)
            y[part] = linear(h, scaled_w2, scaled_b2, plus=None if plus is None else plus[part])
        ctx.save_for_backward(x, w1, b1, w2, b2, scale, hidden)
        ctx.piece, ctx.plus = piece, None if plus is None else plus.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, w2, b2, scale, hidden = ctx.saved_tensors
        wide = at_least_float32(x.dtype)  # for sums over many pieces
        dx = torch.empty_like(x)
        dw1, dw2 = (torch.zeros(t.shape, dtype=wide, device=x.device) for t in (w1, w2.t()))
        db1 = torch.zeros(b1.shape, dtype=wide, device=x.device)
        scaled_w2 = (w2 * scale[:, None]).to(w2.dtype)
        for start in range(0, len(x), ctx.piece):
            part = slice(start, start + ctx.piece)
            dy_part = dy[part].to(x.dtype)
            h = linear(x[part], w1, b1) if hidden is None else hidden[part].clone()
            dh = dy_part @ scaled_w2
            gelu_backward_(h, dh, db1)
            add_product(dw2, h, dy_part)  # without the scale, to give the scale's gradient too
            add_product(dw1, dh, x[part])
            torch.mm(dh, w1, out=dx[part])
        ones = dy.new_ones(len(x), 1)  # a product with ones is several times faster than a sum over points
        db2 = (dy.t() @ ones).squeeze(1)
        dw2 = dw2.t()
        dscale = (dw2 * w2).sum(1) + db2 * b2
        dw2, db2 = dw2 * scale[:, None], db2 * scale
        grads = dx, dw1, db1, dw2, db2, dscale
        cast = [g.to(t.dtype) for g, t in zip(grads, (x, w1, b1, w2, b2, scale), strict=True)]
        return *cast, dy.to(ctx.plus) if ctx.needs_input_grad[6] else None, None, None


def add_product(total: Float[Tensor, "A B"], a: Float[Tensor, "N A"], b: Float[Tensor, "N B"]) -> None:
    """total += a' b, in place."""
    if total.dtype == a.dtype:
        total.addmm_(a.t(), b)
    else:
        total += a.t() @ b
