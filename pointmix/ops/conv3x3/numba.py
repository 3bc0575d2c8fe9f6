"""`conv3x3` in float32 on the CPU by Winograd's algorithm, see `numba_kernels`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.conv3x3 import numba_kernels as kernels
from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.brgemm import brgemm_float32_address
from pointmix.ops.kernels.indices import check_indices
from pointmix.ops.kernels.operators import count_operations, operator
from pointmix.ops.kernels.tiles import Kernel, run
from pointmix.ops.precision import without_autocast

if not sgemm_address():
    raise ImportError("torch's library does not export sgemm of MKL")
TILES = 32 if brgemm_float32_address() else 64  # at a time, whose transforms stay in the cache of a core
G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float32, device="cpu")
TRANSFORM = torch.kron(G, G)  # (16, 9), of a 3x3 kernel row by row


class Sizes(ctypes.Structure):
    """Points, channels in and out; tiles in all and at a time; chunks of the tiles and a counter of those taken;
    addresses of the products of oneDNN, 0 to multiply by MKL's, and of MKL."""

    _fields_ = [(name, ctypes.c_int64) for name in "N C K T tile chunks counter product gemm".split()]


def _chunks(tiles: Int[Tensor, "T 16"]) -> int:
    """One for each thread, as long as there are tiles."""
    return min(torch.get_num_threads(), math.ceil(len(tiles) / TILES))


def _run(kernel: Kernel, feat: Tensor, tiles: Tensor, channels: int, *arrays: Tensor) -> None:
    if tiles.dtype != torch.int64 or tiles.ndim != 2 or tiles.shape[1] != 16:
        raise ValueError(f"expected tiles (T, 16) of int64, got {tuple(tiles.shape)} of {tiles.dtype}")
    check_indices(tiles, len(feat) + 1)
    (n, c), chunks = feat.shape, _chunks(tiles)
    sizes = Sizes(n, c, channels, len(tiles), TILES, chunks, 0, brgemm_float32_address(), sgemm_address())
    room = (feat.new_empty(chunks, 16, TILES, width) for width in (c, channels))
    run(kernel, sizes, feat, tiles, *arrays, *room)


def _forward(
    feat: Float[Tensor, "N C"],
    tiles: Int[Tensor, "T 16"],
    weight: Float[Tensor, "K C 3 3"],
    bias: Float[Tensor, "K"] | None,
) -> Float[Tensor, "N K"]:
    y = feat.new_empty(len(feat), len(weight))
    with without_autocast(feat):  # a backward pass may run under autocast
        u = TRANSFORM @ weight.permute(2, 3, 1, 0).reshape(9, -1)  # (16, C * K)
    _run(kernels.forward, feat, tiles, len(weight), u, feat.new_zeros(len(weight)) if bias is None else bias, y)
    return y


def _weight_gradient(
    feat: Float[Tensor, "N C"], tiles: Int[Tensor, "T 16"], dy: Float[Tensor, "N K"]
) -> Float[Tensor, "K C 3 3"]:
    """Its sums depend on the number of threads, not on their order."""
    c, k = feat.shape[1], dy.shape[1]
    du = feat.new_zeros(_chunks(tiles), 16, c * k)
    _run(kernels.weight_gradient, feat, tiles, k, dy, du)
    with without_autocast(feat):
        return (TRANSFORM.t() @ du.sum(0)).view(3, 3, c, k).permute(3, 2, 0, 1).contiguous()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _transposed(weight: Float[Tensor, "K C 3 3"]) -> Float[Tensor, "C K 3 3"]:
    """The weight of the convolution that takes gradients of the output to those of the input."""
    return weight.flip(2, 3).transpose(0, 1)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (feat, tiles, weight), (of_feat, _, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        conv3x3(dy, tiles, _transposed(weight), None) if of_feat else None,
        None,
        weight_gradient(feat, tiles, dy) if of_weight else None,
        dy.sum(0) if of_bias else None,
    )


conv3x3 = operator(
    "conv3x3(Tensor feat, Tensor tiles, Tensor weight, Tensor? bias) -> Tensor",
    _forward,
    lambda feat, tiles, weight, bias: feat.new_empty(feat.shape[0], weight.shape[0]),
    backward=(_setup, _gradients),
)


def _weight_gradients(ctx: Any, dw: Tensor) -> tuple[Tensor | None, ...]:
    (feat, tiles, dy), (of_feat, _, of_dy) = ctx.saved_tensors, ctx.needs_input_grad
    return (
        conv3x3(dy, tiles, _transposed(dw), None) if of_feat else None,
        None,
        conv3x3(feat, tiles, dw, None) if of_dy else None,
    )


weight_gradient = operator(
    "conv3x3_weight_gradient(Tensor feat, Tensor tiles, Tensor dy) -> Tensor",
    _weight_gradient,
    lambda feat, tiles, dy: feat.new_empty(dy.shape[1], feat.shape[1], 3, 3),
    backward=(_setup, _weight_gradients),
)


def _flops(feat: Sequence[int], tiles: Sequence[int], weight: Sequence[int], *rest: object, **kwargs: object) -> int:
    """Those of the convolution as it is defined."""
    return 2 * 9 * math.prod(feat) * weight[0]


def _weight_flops(feat: Sequence[int], tiles: Sequence[int], dy: Sequence[int], **kwargs: object) -> int:
    return 2 * 9 * math.prod(feat) * dy[1]


count_operations(torch.ops.pointmix.conv3x3, _flops)
count_operations(torch.ops.pointmix.conv3x3_weight_gradient, _weight_flops)
