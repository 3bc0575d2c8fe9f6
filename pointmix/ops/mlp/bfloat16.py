"""The MLP in bfloat16 on a CPU, see `bfloat16_kernels`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.kernels.brgemm import brgemm_addresses
from pointmix.ops.kernels.tiles import Sizes, num_chunks, run
from pointmix.ops.mlp import bfloat16_kernels as kernels
from pointmix.ops.mlp import pieces

if not all(brgemm_addresses()):
    raise ImportError("torch has no bfloat16 kernels of oneDNN for this processor")
TILE = 2**16  # numbers in the hidden layer of a tile, which a core holds in float32 twice and in bfloat16 three times


def run_forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, plus: Tensor | None) -> Float[Tensor, "N K"]:
    """w2 gelu(w1 x + b1) + b2 + plus, in float32."""
    if not torch.backends.mkldnn.enabled:  # switched off since the import; oneDNN would end the process
        return pieces.forward(x, w1, b1, w2, b2, plus, torch.float32, None)
    sizes = _sizes(x, w1, w2, plus is not None)
    y, room = x.new_empty(len(x), len(w2), dtype=torch.float32), (sizes.chunks, sizes.tile, len(w1))
    h, a = x.new_empty(room, dtype=torch.float32), x.new_empty(room)
    weights = _pairs(w1.t()), b1.float(), _pairs(w2.t()), b2.float()
    run(kernels.forward, sizes, x, *weights, y if plus is None else plus, y, h, a)
    return y


def run_backward(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, w1, b1, w2 and b2. Sums over the points depend on the number of threads, not on their order."""
    if not torch.backends.mkldnn.enabled:
        dx, *sums = pieces.backward(x, w1, b1, w2, dy)
        return dx, *(t.to(x.dtype, memory_format=torch.contiguous_format) for t in sums)  # type: ignore[return-value]
    sizes = _sizes(x, w1, w2, False)
    (hidden, channels), out = w1.shape, len(w2)
    dx, shapes = x.new_empty(x.shape), [(channels, hidden), (hidden,), (out, hidden), (out,)]
    sums = [torch.zeros(sizes.chunks, *shape) for shape in shapes]
    room = sizes.chunks, sizes.tile, hidden
    scratch = [*(x.new_empty(room, dtype=torch.float32) for _ in range(2)), *(x.new_empty(room) for _ in range(3))]
    transposed = x.new_empty(sizes.chunks, (channels + 2 * out) * sizes.tile)
    weights = _pairs(w1.t()), b1.float(), _pairs(w2), _pairs(w1)
    run(kernels.backward, sizes, x, *weights, dy, dx, *sums, *scratch, transposed)
    dw1, db1, dw2, db2 = (t.sum(0).to(x.dtype) for t in sums)
    return dx, dw1.t().contiguous(), db1, dw2, db2


def _sizes(x: Tensor, w1: Tensor, w2: Tensor, plus: bool) -> Sizes:
    (points, channels), (hidden, _) = x.shape, w1.shape
    tile = min(max(TILE // hidden, 8), points + 1) // 2 * 2
    return Sizes(points, channels, hidden, len(w2), max(tile, 2), num_chunks(x, w1), 0, plus, *brgemm_addresses())


def _pairs(w: Float[Tensor, "A B"]) -> Float[Tensor, "_ B 2"]:
    """Rows two by two."""
    return w.unflatten(0, (-1, 2)).transpose(1, 2).contiguous()


forward = torch.ops.pointmix.mlp_bfloat16.default
