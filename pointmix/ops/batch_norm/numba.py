"""`batch_norm_relu` on the CPU, see `numba_kernels`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.batch_norm import numba_kernels as kernels
from pointmix.ops.kernels import phases
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.precision import at_least_float32

TASK = 2**16  # numbers that a thread takes at a time; sums do not depend on the number of threads
MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster
STORED = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}


def batch_norm_relu(
    x: Float[Tensor, "N C"],
    running_mean: Float[Tensor, "C"],
    running_var: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    bias: Float[Tensor, "C"],
    *,
    momentum: float,
    eps: float,
    plus: Float[Tensor, "N C"] | None = None,
) -> Float[Tensor, "N C"]:
    """`pointmix.ops.batch_norm.batch_norm_relu_reference`, with a gradient of its own."""
    y, mean, var = _NormReLU.apply(x, weight, bias, plus, eps)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (len(x) / (len(x) - 1)), momentum)
    return y


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, plus: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        mean, var = _moments(x)
        inverse = (var + eps).rsqrt()
        scale = inverse * weight
        y, added = torch.empty_like(x), {} if plus is None else {"plus": plus}
        _run(kernels.NORMALIZE, x=x, scale=scale, shift=bias - mean * scale, y=y, **added)
        ctx.save_for_backward(x, y, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, inverse = ctx.saved_tensors
        g, dx, sums = torch.empty_like(x), torch.empty_like(x), _sums(x)  # g, of what the ReLU is given
        _run(kernels.SUMS, x=x, y=y, dy=dy, mean=mean, g=g, sums=sums)
        dbias, along = sums.sum(0)
        shift, scale = dbias / len(x), along * inverse.square() / len(x)
        _run(kernels.GRADIENT, x=x, g=g, mean=mean, shift=shift, scale=scale, outer=inverse * weight, dx=dx)
        return dx, along * inverse, dbias, g if ctx.needs_input_grad[3] else None, None


def _moments(x: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"]]:
    """Mean and variance over the rows, from those of each task."""
    sums, step = _sums(x), _step(x)
    _run(kernels.MOMENTS, x=x, sums=sums)
    means, squares = sums.unbind(1)
    rows = sums.new_full((len(sums), 1), step)
    rows[-1] = len(x) - step * (len(sums) - 1)
    mean = (rows * means).sum(0) / len(x)
    return mean, (squares + rows * (means - mean).square()).sum(0) / len(x)


def _step(x: Float[Tensor, "N C"]) -> int:
    """Rows of a task."""
    return max(TASK // x.shape[1], 1)


def _sums(x: Float[Tensor, "N C"]) -> Float[Tensor, "T 2 C"]:
    """Room for two sums of each task and channel."""
    return x.new_empty(-(-len(x) // _step(x)), 2, x.shape[1], dtype=at_least_float32(x.dtype))


def _run(phase: int, **arrays: Tensor) -> None:
    """A phase of `numba_kernels`."""
    x = arrays["x"]
    sizes = phase, *x.shape, _step(x), "plus" in arrays, 0
    phases.run(_compiled(x.dtype), sizes, kernels.ARRAYS, arrays, parallel=x.numel() >= MIN_NUMBERS)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(STORED[dtype], np.float64 if dtype == torch.float64 else np.float32)
    return compiled_callback(work, kernels.__file__)
