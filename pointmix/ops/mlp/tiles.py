"""What the compiled forms of the MLP share: sizes, threads and operators."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float
from numba import types
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.kernels.operators import operator

Shape = Sequence[int]
Kernel = Callable[..., None]
SIGNATURE = types.void(types.CPointer(types.voidptr))
MIN_MULTIPLICATIONS = 2**18  # with fewer, one thread is faster


class Sizes(ctypes.Structure):
    """Points; channels in, hidden and out; points of a tile; chunks of the points and a counter of those taken; whether
    a residual is added; addresses of the matrix product and of what ends a thread's products."""

    _fields_ = [(name, ctypes.c_int64) for name in "N C H K tile chunks counter plus product finish".split()]


def num_chunks(x: Float[Tensor, "N C"], w1: Float[Tensor, "H C"]) -> int:
    """The number of threads, each of which takes one chunk of the points."""
    return torch.get_num_threads() if len(x) * w1.numel() >= MIN_MULTIPLICATIONS else 1


def run(kernel: Kernel, sizes: Sizes, *arrays: Tensor) -> None:
    """Call a kernel in as many threads as there are chunks."""
    kept = [t.contiguous() for t in arrays]
    addresses = (ctypes.c_void_p * (1 + len(kept)))(ctypes.addressof(sizes), *(t.data_ptr() for t in kept))
    threads.run(cast(int, _compiled(kernel).address), ctypes.addressof(addresses), sizes.chunks)


@cache
def _compiled(kernel: Kernel) -> CFunc:
    return compiled_callback(kernel, SIGNATURE, kernel.__code__.co_filename)


def operators(dtype: str, forward: Callable[..., Tensor], backward: Callable[..., Any]) -> Callable[..., Tensor]:
    """The forward pass as an operator of torch, differentiable once, which knows how many operations it takes."""
    op_backward = operator(
        f"mlp_{dtype}_backward(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor dy) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        backward,
        lambda x, w1, b1, w2, dy: tuple(map(torch.empty_like, (x, w1, b1, w2, w2[:, 0].to(b1)))),
        floating=True,
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.plus = inputs[5] is not None

    def gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return *op_backward(*ctx.saved_tensors, dy.contiguous()), dy if ctx.plus else None

    op = operator(
        f"mlp_{dtype}(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? plus) -> Tensor",
        forward,
        lambda x, w1, b1, w2, b2, plus: x.new_empty(len(x), len(w2), dtype=torch.float32),
        backward=(setup, gradients),
    )
    register_flop_formula(getattr(torch.ops.pointmix, f"mlp_{dtype}"))(_forward_flops)
    register_flop_formula(getattr(torch.ops.pointmix, f"mlp_{dtype}_backward"))(_backward_flops)
    return op


def _forward_flops(x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, out_shape: Shape, **kwargs: object) -> int:
    return 2 * x[0] * (math.prod(w1) + math.prod(w2))


def _backward_flops(
    x: Shape, w1: Shape, b1: Shape, w2: Shape, *rest: object, out_shape: Shape, **kwargs: object
) -> int:
    return 2 * x[0] * (3 * math.prod(w1) + 2 * math.prod(w2))
