"""`batch_norm_relu` on the CPU, in few passes over the rows, see `numba_kernels`."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.batch_norm import numba_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback

BLOCK = 2**16  # numbers in a block, which is read twice: 256 KiB of float32
BLOCK_ROWS = 256  # at most, as sums of many numbers are inexact; those of blocks are added in float64


def batch_norm_relu(
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> tuple[Float[Tensor, "N C"], Float[Tensor, "C"], Float[Tensor, "C"]]:
    """`pointmix.ops.batch_norm.batch_norm_relu`."""
    y, mean, var = _BatchNormReLU.apply(x.contiguous(), weight, bias, eps, None if plus is None else plus.contiguous())
    return y, mean, var


class _BatchNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, plus: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        step = min(max(BLOCK // x.shape[1], 1), BLOCK_ROWS)
        sums = x.new_empty(-(-len(x) // step), 2, x.shape[1])
        _run(kernels.MOMENTS, step, x=x, sums=sums)
        rows = torch.full((len(sums), 1), step, dtype=torch.float64)
        rows[-1] = len(x) - step * (len(sums) - 1)
        means, squares = sums.double().unbind(1)
        mean = (rows * means).sum(0) / len(x)
        var = (squares.sum(0) + (rows * (means - mean).square()).sum(0)) / len(x)
        scale = (weight * torch.rsqrt(var + eps)).to(x.dtype)
        y = torch.empty_like(x)
        mean = mean.to(x.dtype)
        _run(kernels.FORWARD, step, x=x, mean=mean, scale=scale, bias=bias, plus=plus, y=y)
        var = var.to(x.dtype)
        ctx.save_for_backward(x, mean, var, scale, bias, None if plus is None else y)
        ctx.step, ctx.eps = step, eps
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *statistics: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, var, scale, bias, y = ctx.saved_tensors
        dplus = None if y is None else torch.empty_like(x)
        sums, dx = x.new_empty(-(-len(x) // ctx.step), 2, x.shape[1]), torch.empty_like(x)
        at = dict(x=x, mean=mean, scale=scale, bias=bias, plus=y, y=y, dy=dy.contiguous(), dplus=dplus)
        _run(kernels.SUMS, ctx.step, **at, sums=sums)
        total, dot = sums.double().sum(0)
        inverse = 1 / (var + ctx.eps).double()
        shift = scale * total / len(x)
        slope = scale * inverse * dot / len(x)
        _run(kernels.BACKWARD, ctx.step, **at, shift=shift.to(x.dtype), slope=slope.to(x.dtype), dx=dx)
        return dx, (dot * inverse.sqrt()).to(x.dtype), total.to(x.dtype), None, dplus


def _run(phase: int, step: int, **arrays: Tensor | None) -> None:
    """A phase of `numba_kernels`."""
    x = cast(Tensor, arrays["x"])
    sizes = (ctypes.c_int64 * kernels.SIZES)(phase, *x.shape, step, arrays.get("plus") is not None, 0)
    held = {name: t.contiguous() for name, t in arrays.items() if t is not None}
    pointers = [held[name].data_ptr() if name in held else None for name in kernels.ARRAYS]
    at = (ctypes.c_void_p * (1 + len(pointers)))(ctypes.addressof(sizes), *pointers)
    num_threads = min(torch.get_num_threads(), -(-len(x) // step))
    threads.run(cast(int, _compiled(x.dtype).address), ctypes.addressof(at), num_threads)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(np.float64 if dtype == torch.float64 else np.float32)
    return compiled_callback(work, kernels.SIGNATURE, kernels.__file__)
