"""The MLP in float32 on a CPU, see `float32_kernels`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.brgemm import brgemm_float32_address
from pointmix.ops.kernels.tiles import Sizes, num_chunks, run
from pointmix.ops.mlp import float32_kernels as kernels

if not sgemm_address():
    raise ImportError("torch's library does not export sgemm of MKL")
TILE = 2**17  # numbers in the hidden layer of a tile, of which a core holds two


def run_forward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None,
) -> Float[Tensor, "N K"]:
    """w2 gelu(w1 x + b1) + b2 + plus"""
    y, sizes = x.new_empty(len(x), len(w2)), _sizes(x, w1, w2, plus is not None)
    scratch = x.new_empty(sizes.chunks, sizes.tile, len(w1))
    run(kernels.forward, sizes, x, w1.t(), w2.t(), b1, b2, y if plus is None else plus, y, scratch)
    return y


def run_backward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    dy: Float[Tensor, "N K"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w1, b1, w2 and b2. Sums over the points depend on the number of threads, not on their order."""
    sizes = _sizes(x, w1, w2, False)
    dx, sums = x.new_empty(x.shape), [x.new_zeros(sizes.chunks, *t.shape) for t in (w1.t(), b1, w2, w2[:, 0])]
    layers = x.new_empty(sizes.chunks, 2, sizes.tile, len(w1))
    columns = x.new_empty(sizes.chunks, x.shape[1] + len(w2), sizes.tile)
    run(kernels.backward, sizes, x, w1, w1.t(), b1, w2, dy, dx, *sums, layers, columns)
    dw1, db1, dw2, db2 = (t.sum(0) for t in sums)
    return dx, dw1.t().contiguous(), db1, dw2, db2


def _sizes(x: Tensor, w1: Tensor, w2: Tensor, plus: bool) -> Sizes:
    (points, channels), (hidden, _) = x.shape, w1.shape
    tile = max(TILE // hidden, 8)
    full = points >= tile and torch.backends.mkldnn.enabled  # oneDNN keeps its kernels of every size of tile
    products = sgemm_address(), brgemm_float32_address() if full else 0
    return Sizes(points, channels, hidden, len(w2), min(tile, max(points, 1)), num_chunks(x, w1), 0, plus, *products)


forward = torch.ops.pointmix.mlp_float32.default
