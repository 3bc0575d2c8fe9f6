"""The MLP of a block by torch's products, in pieces of the points whose hidden layer fits the cache."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.gelu import gelu_backward_
from pointmix.ops.linear import linear, rows_product
from pointmix.ops.precision import at_least_float32

CACHED = 2**23  # bytes of the layer of a piece on a CPU


def forward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None,
    dtype: torch.dtype,
    hidden: Float[Tensor, "N H"] | None,
) -> Float[Tensor, "N K"]:
    """w2 gelu(w1 x + b1) + b2 + plus in a dtype, and hidden = w1 x + b1 if it is kept."""
    parts = pieces(x, len(w1))
    y = x.new_empty(len(x), len(w2), dtype=dtype)
    for part in parts:
        if hidden is not None:
            h = F.gelu(torch.addmm(b1, x[part], w1.t(), out=hidden[part]))
        else:
            h = linear(x[part], w1, b1, gelu=True)
        result = linear(h, w2, b2, plus=None if plus is None else plus[part])
        if len(parts) == 1 and result.dtype == dtype:
            return result
        y[part] = result
    return y


def backward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    dy: Float[Tensor, "N K"],
    hidden: Float[Tensor, "N H"] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w1, b1, w2 and b2, those that are sums over several pieces in at least float32."""
    parts, wide = pieces(x, len(w1)), at_least_float32(x.dtype)
    dx, db1 = x.new_empty(x.shape), b1.new_zeros(b1.shape, dtype=wide)
    dw1, dw2 = (t.new_zeros(t.shape, dtype=wide) if len(parts) != 1 else None for t in (w1, w2))
    for part in parts:
        dy_part = dy[part].to(x.dtype)
        h = linear(x[part], w1, b1) if hidden is None else hidden[part]
        dh = linear(dy_part, w2.t())
        dw2 = _plus(dw2, rows_product(dy_part, gelu_backward_(h, dh, db1)))
        dw1 = _plus(dw1, rows_product(dh, x[part]))
        dx[part] = linear(dh, w1.t())
    assert dw1 is not None and dw2 is not None
    ones = dy.new_ones(len(x), 1)  # a product with ones is several times faster than a sum over points
    return dx, dw1, db1, dw2, (dy.t() @ ones).squeeze(1)


def pieces(x: Float[Tensor, "N C"], width: int) -> list[slice]:
    """Slices of the points whose layer of this width fits the cache."""
    piece = points_per_piece(x, width)
    return [slice(start, start + piece) for start in range(0, len(x), piece)]


def points_per_piece(x: Float[Tensor, "N C"], width: int) -> int:
    """The number of points of a piece, so that its layer of this width about fits the cache."""
    number = round(len(x) * width * x.itemsize / CACHED) if x.device.type == "cpu" else 1
    return max(-(-len(x) // max(number, 1)), 1)


def _plus(total: Float[Tensor, "A B"] | None, product: Float[Tensor, "A B"]) -> Float[Tensor, "A B"]:
    """The sum, in place."""
    return product if total is None else total.add_(product)
