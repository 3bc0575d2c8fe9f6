"""`soft_weights` and its gradients on the CPU, each in one pass, see `numba_kernels`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.soft_weights import numba_kernels as kernels

MIN_NUMBERS = 2**14  # with fewer weights, one thread is faster


def soft_weights(
    near: Float[Tensor, "R M E L"],
    size: Float[Tensor, "R E L"],
    bound: Float[Tensor, "1"],
    bias: Float[Tensor, "P M #E #L"] | None,
    valid: Bool[Tensor, "R L"] | None,
    exists: Bool[Tensor, "R M"] | None,
) -> tuple[Float[Tensor, "R M E L"], Float[Tensor, "R M E"]]:
    """`pointmix.ops.soft_weights.soft_weights_reference`. The sums are float32 even of bfloat16."""
    rows, centers, heads, points = near.shape  # the kernels do not check shapes: `expand` raises if they do not fit
    near, bound = near.contiguous(), bound.float().expand(1)
    size = size.float().expand(rows, heads, points).contiguous()
    if bias is not None:
        if not len(bias) or rows % len(bias):
            raise ValueError(f"the bias repeats for {rows} rows, so it cannot have {len(bias)} rows")
        bias = bias.float().expand(-1, centers, heads, points).contiguous()
    valid = None if valid is None else valid.bool().expand(rows, points).contiguous()
    exists = None if exists is None else exists.bool().expand(rows, centers).contiguous()
    if torch.is_grad_enabled():
        weights: tuple[Tensor, Tensor] = _SoftWeights.apply(near, size, bound, bias, valid, exists)
        return weights
    return _forward(near, size, bound, bias, valid, exists, near)


def _forward(
    near: Tensor,
    size: Tensor,
    bound: Tensor,
    bias: Tensor | None,
    valid: Tensor | None,
    exists: Tensor | None,
    a: Tensor,
) -> tuple[Tensor, Tensor]:
    total = size.new_empty(near.shape[:3])
    flags = [t is not None for t in (bias, valid, exists)]
    _run(kernels.forward_for, near, bias, flags, near, size, bound, bias, valid, exists, a, total)
    return a, total


class _SoftWeights(torch.autograd.Function):
    """Keeps the weights, which products need anyway, and what they were computed from."""

    @staticmethod
    def forward(
        ctx: Any,
        near: Tensor,
        size: Tensor,
        bound: Tensor,
        bias: Tensor | None,
        valid: Tensor | None,
        exists: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        a, total = _forward(near, size, bound, bias, valid, exists, torch.empty_like(near))
        ctx.save_for_backward(near, size, bound, a)
        ctx.bias_shape = None if bias is None else bias.shape
        return a, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, da: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
        near, size, bound, a = ctx.saved_tensors
        dnear, dsize = torch.empty_like(near), torch.empty_like(size)
        dbias = None if ctx.bias_shape is None else size.new_zeros(ctx.bias_shape)
        rows = len(near if dbias is None else dbias)
        dbound = size.new_zeros(rows, near.shape[2])
        da, dtotal = da.contiguous(), dtotal.contiguous()
        flags = [dbias is not None, False, False]
        _run(kernels.backward_for, near, dbias, flags, near, size, bound, a, da, dtotal, dnear, dsize, dbias, dbound)
        return dnear, dsize, dbound.sum().view(1), dbias, None, None


def _run(
    work_for: Callable[[type], Callable[..., None]],
    near: Tensor,
    bias: Tensor | None,
    flags: list[bool],
    *arrays: Tensor | None,
) -> None:
    """Call a kernel with its sizes and the addresses of arrays."""
    rows = len(near if bias is None else bias)
    heads = max(kernels.WIDTH // max(near.shape[3], 1), 1)  # at a time
    chunks = min(torch.get_num_threads(), rows * -(-near.shape[2] // heads)) if near.numel() >= MIN_NUMBERS else 1
    sizes = (ctypes.c_int64 * 10)(*near.shape, rows, heads, *flags, 0)
    addresses = [0 if t is None else t.data_ptr() for t in arrays]
    pointers = (ctypes.c_void_p * (1 + len(arrays)))(ctypes.addressof(sizes), *addresses)
    threads.run(cast(int, _compiled(work_for, near.dtype).address), ctypes.addressof(pointers), chunks)


@cache
def _compiled(work_for: Callable[[type], Callable[..., None]], dtype: torch.dtype) -> CFunc:
    work = work_for(np.uint16 if dtype == torch.bfloat16 else np.float32)
    return compiled_callback(work, kernels.__file__)
