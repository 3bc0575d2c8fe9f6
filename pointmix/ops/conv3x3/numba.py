"""`conv3x3` in float32 on the CPU by Winograd's algorithm, see `numba_kernels`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.conv3x3 import numba_kernels as kernels
from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.brgemm import brgemm_float32_address
from pointmix.ops.kernels.operators import count_operations, operator
from pointmix.ops.kernels.tiles import Kernel, run
from pointmix.ops.precision import without_autocast

if not (brgemm_float32_address() and sgemm_address()):
    raise ImportError("torch's library does not export products of MKL and oneDNN, or lacks AVX-512")
TILES = 32  # at a time, whose transforms stay in the cache of a core
G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float32, device="cpu")
TRANSFORM = torch.kron(G, G)  # (16, 9), of a 3x3 kernel row by row


class Sizes(ctypes.Structure):
    """Maps, rows, columns, channels in and out; tiles at a time; chunks of the tiles and a counter of those taken;
    addresses of the matrix products."""

    _fields_ = [(name, ctypes.c_int64) for name in "B H W C K tile chunks counter product gemm".split()]


def _chunks(x: Float[Tensor, "B H W C"]) -> int:
    """One for each thread, as long as there are tiles."""
    b, h, w, _ = x.shape
    tiles = b * math.ceil(h / 2) * math.ceil(w / 2)
    return min(torch.get_num_threads(), math.ceil(tiles / TILES))


def _run(kernel: Kernel, x: Tensor, channels: int, *arrays: Tensor) -> None:
    (b, h, w, c), chunks = x.shape, _chunks(x)
    sizes = Sizes(b, h, w, c, channels, TILES, chunks, 0, brgemm_float32_address(), sgemm_address())
    room = (x.new_empty(chunks, 16, TILES, n) for n in (c, channels))
    run(kernel, sizes, x, *arrays, *room)


def _forward(
    x: Float[Tensor, "B H W C"], weight: Float[Tensor, "K C 3 3"], bias: Float[Tensor, "K"] | None
) -> Float[Tensor, "B H W K"]:
    y = x.new_empty(*x.shape[:3], len(weight))
    with without_autocast(x):  # a backward pass may run under autocast
        u = TRANSFORM @ weight.permute(2, 3, 1, 0).reshape(9, -1)  # (16, C * K)
    _run(kernels.forward, x, len(weight), u, x.new_zeros(len(weight)) if bias is None else bias, y)
    return y


def _weight_gradient(x: Float[Tensor, "B H W C"], dy: Float[Tensor, "B H W K"]) -> Float[Tensor, "K C 3 3"]:
    """Its sums depend on the number of threads, not on their order."""
    c, k = x.shape[3], dy.shape[3]
    du = x.new_zeros(_chunks(x), 16, c * k)
    _run(kernels.weight_gradient, x, k, dy, du)
    with without_autocast(x):
        return (TRANSFORM.t() @ du.sum(0)).view(3, 3, c, k).permute(3, 2, 0, 1).contiguous()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _turned(weight: Float[Tensor, "K C 3 3"]) -> Float[Tensor, "C K 3 3"]:
    """The weight of the convolution that takes gradients of the output to those of the input."""
    return weight.flip(2, 3).transpose(0, 1)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        conv3x3(dy, _turned(weight), None) if of_x else None,
        weight_gradient(x, dy) if of_weight else None,
        dy.sum((0, 1, 2)) if of_bias else None,
    )


conv3x3 = operator(
    "conv3x3(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    _forward,
    lambda x, weight, bias: x.new_empty(*x.shape[:3], weight.shape[0]),
    backward=(_setup, _gradients),
)


def _weight_gradients(ctx: Any, dw: Tensor) -> tuple[Tensor | None, Tensor | None]:
    (x, dy), (of_x, of_dy) = ctx.saved_tensors, ctx.needs_input_grad
    return conv3x3(dy, _turned(dw), None) if of_x else None, conv3x3(x, dw, None) if of_dy else None


weight_gradient = operator(
    "conv3x3_weight_gradient(Tensor x, Tensor dy) -> Tensor",
    _weight_gradient,
    lambda x, dy: x.new_empty(dy.shape[3], x.shape[3], 3, 3),
    backward=(_setup, _weight_gradients),
)


def _flops(x: Sequence[int], weight: Sequence[int], *rest: object, **kwargs: object) -> int:
    """Those of the convolution as it is defined."""
    return 2 * 9 * math.prod(x) * weight[0]


def _weight_flops(x: Sequence[int], dy: Sequence[int], **kwargs: object) -> int:
    return 2 * 9 * math.prod(x) * dy[3]


count_operations(torch.ops.pointmix.conv3x3, _flops)
count_operations(torch.ops.pointmix.conv3x3_weight_gradient, _weight_flops)
