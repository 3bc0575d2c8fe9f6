"""The MLP in float32 on a CPU, see `numba_kernels`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointmix.ops.kernels import threads
from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.kernels.operators import operator
from pointmix.ops.mlp import numba_kernels as kernels

SGEMM = sgemm_address()
if not SGEMM:
    raise ImportError("torch's library does not export sgemm of MKL")
Shape = Sequence[int]
TILE = 2**18  # numbers in the hidden layer of a tile: 1 MiB
MIN_MULTIPLICATIONS = 2**18  # with fewer, one thread is faster


def _forward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    b2: Float[Tensor, "K"],
    plus: Float[Tensor, "N K"] | None,
) -> Float[Tensor, "N K"]:
    y = x.new_empty(len(x), len(w2))
    sizes, scratch = _sizes(x, w1, w2, 1, plus is not None)
    _run(kernels.forward, sizes, x, w1, b1, w2, b2, y if plus is None else plus, y, scratch)
    return y


def _backward(
    x: Float[Tensor, "N C"],
    w1: Float[Tensor, "H C"],
    b1: Float[Tensor, "H"],
    w2: Float[Tensor, "K H"],
    dy: Float[Tensor, "N K"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    sizes, scratch = _sizes(x, w1, w2, 2, False)
    dx, sums = torch.empty_like(x), [x.new_zeros(sizes.chunks, *t.shape) for t in (w1, b1, w2, w2[:, 0])]
    _run(kernels.backward, sizes, x, w1, b1, w2, dy, dx, *sums, scratch)
    dw1, db1, dw2, db2 = (t.sum(0) if len(t) > 1 else t[0] for t in sums)
    return dx, dw1, db1, dw2, db2


# w2 gelu(w1 x + b1) + b2 + plus
forward = operator(
    "numba_mlp(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? plus) -> Tensor",
    _forward,
    lambda x, w1, b1, w2, b2, plus: x.new_empty(len(x), len(w2)),
    floating=True,
)
# gradients of x, w1, b1, w2 and b2; sums over the points depend on the number of threads, not on their order
backward = operator(
    "numba_mlp_backward(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor dy) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    lambda x, w1, b1, w2, dy: (*map(torch.empty_like, (x, w1, b1, w2)), w2.new_empty(len(w2))),
    floating=True,
)


@register_flop_formula(torch.ops.pointmix.numba_mlp)
def _forward_flops(x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, out_shape: Shape, **kwargs: object) -> int:
    return 2 * x[0] * (math.prod(w1) + math.prod(w2))


@register_flop_formula(torch.ops.pointmix.numba_mlp_backward)
def _backward_flops(
    x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, out_shape: Shape, **kwargs: object
) -> int:
    return 2 * x[0] * (3 * math.prod(w1) + 2 * math.prod(w2))


def _sizes(x: Tensor, w1: Tensor, w2: Tensor, layers: int, plus: bool) -> tuple[kernels.Sizes, Tensor]:
    """Sizes, and room for a tile's hidden layer in each thread, or two."""
    (points, channels), (hidden, _) = x.shape, w1.shape
    chunks = torch.get_num_threads() if points * channels * hidden >= MIN_MULTIPLICATIONS else 1
    tile = min(max(TILE // hidden, 8), max(points, 1))
    sizes = kernels.Sizes(points, channels, hidden, len(w2), tile, chunks, 0, plus, SGEMM)
    return sizes, x.new_empty(chunks, layers, tile, hidden)


def _run(kernel: Callable[..., None], sizes: kernels.Sizes, *arrays: Tensor) -> None:
    kept = [t.contiguous() for t in arrays]
    addresses = (ctypes.c_void_p * (1 + len(kept)))(ctypes.addressof(sizes), *(t.data_ptr() for t in kept))
    threads.run(cast(int, _compiled(kernel).address), ctypes.addressof(addresses), sizes.chunks)


@cache
def _compiled(kernel: Callable[..., None]) -> CFunc:
    return compiled_callback(kernel, kernels.SIGNATURE, kernels.__file__)
