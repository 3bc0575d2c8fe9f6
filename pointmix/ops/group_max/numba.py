"""`group_max` on the CPU, see `numba_kernels`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.group_max import numba_kernels as kernels
from pointmix.ops.kernels import phases
from pointmix.ops.kernels.jit import compiled_callback

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster
STORED = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}


def group_max(x: Float[Tensor, "G k C"]) -> Float[Tensor, "G C"]:
    """`pointmix.ops.group_max.group_max_reference`, with a gradient of its own."""
    y: Tensor = _Max.apply(x)
    return y


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = x.new_empty(len(x), x.shape[2])
        _run(kernels.VALUES, x=x, y=y)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        dx = torch.empty_like(x)
        _run(kernels.GRADIENT, x=x, y=y, dy=dy, dx=dx)
        return dx


def _run(phase: int, **arrays: Tensor) -> None:
    """A phase of `numba_kernels`."""
    x = arrays["x"]
    parallel = x.numel() >= MIN_NUMBERS
    phases.run(_compiled(x.dtype), (phase, *x.shape, 0), kernels.ARRAYS, arrays, parallel=parallel)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(STORED[dtype], np.float64 if dtype == torch.float64 else np.float32)
    return compiled_callback(work, kernels.__file__)
