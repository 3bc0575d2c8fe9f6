"""`lifted_loss` in float32 on the CPU, see `numba_kernels`."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels.operators import operator
from pointmix.ops.kernels.tiles import run
from pointmix.ops.lifted_loss import numba_kernels as kernels

MIN_LOGITS = 2**15  # with fewer lifted logits, one thread is faster


class Sizes(ctypes.Structure):
    """Sets; coarse points and points of each, coarse points of a point, classes; the label that is ignored; chunks of
    the points and a counter of those taken."""

    _fields_ = [(name, ctypes.c_int64) for name in "S Q N J K ignore chunks counter".split()]


def _lifted_loss(
    feat: Float[Tensor, "S Q K"],
    index: Int[Tensor, "N J"],
    weight: Float[Tensor, "N J"],
    labels: Int[Tensor, "S N"],
    classes: Float[Tensor, "K"],
    ignore: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, "S Q K"]]:
    """The loss and its gradient. Sums depend on the number of threads, not on their order."""
    (n, j), (sets, q, k) = index.shape, feat.shape
    threads = torch.get_num_threads() if sets * n * k >= MIN_LOGITS else 1
    # of each set, so that all threads have as many; but each part has a gradient in memory
    parts = min(math.lcm(sets, threads), sets + 2 * threads) // max(sets, 1)
    loss, gradient = feat.new_zeros(sets * parts, dtype=torch.float64), feat.new_zeros(sets, parts, q, k)
    sizes = Sizes(sets, q, n, j, k, ignore, sets * parts, 0)
    run(kernels.loss_and_gradient, sizes, feat, index, weight, labels, classes, loss, gradient)
    return loss.sum().to(feat.dtype), gradient.sum(1) if parts > 1 else gradient.squeeze(1)


backward = operator(  # whose result depends on feat, so that second derivatives raise an error
    "lifted_loss_backward(Tensor feat, Tensor gradient, Tensor of_loss) -> Tensor",
    lambda feat, gradient, of_loss: gradient * of_loss,
    lambda feat, gradient, of_loss: feat.new_empty(feat.shape),
    floating=True,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, of_loss: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    return backward(*ctx.saved_tensors, of_loss), None, None, None, None, None


lifted_loss = operator(
    "lifted_loss(Tensor feat, Tensor index, Tensor weight, Tensor labels, Tensor classes, int ignore) "
    "-> (Tensor, Tensor)",
    _lifted_loss,
    lambda feat, *rest: (feat.new_empty(()), feat.new_empty(feat.shape)),
    backward=(_setup, _gradients),
)
