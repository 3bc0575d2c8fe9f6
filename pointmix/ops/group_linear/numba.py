"""`group_rows` and `difference_sums` for training on the CPU: what is gathered is not written, see `numba_kernels`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.group_linear import numba_kernels as kernels
from pointmix.ops.kernels import phases
from pointmix.ops.kernels.indices import check_indices
from pointmix.ops.kernels.jit import compiled_callback

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster


def group_rows(
    u: Float[Tensor, "N K"],
    t: Float[Tensor, "S K"],
    scale: Float[Tensor, "S"],
    near: Int[Tensor, "S k"],
    anchor: Int[Tensor, "S"],
) -> Float[Tensor, "S*k K"]:
    """`pointmix.ops.group_linear.group_rows`."""
    given = u, t.expand(len(near), u.shape[1]), scale.expand(len(near)), *_checked(near, anchor, len(u))
    out: Tensor = _Rows.apply(*(tensor.contiguous() for tensor in given))
    return out.flatten(0, 1)


def difference_sums(
    feat: Float[Tensor, "N C"], near: Int[Tensor, "S k"], anchor: Int[Tensor, "S"]
) -> Float[Tensor, "S 2"]:
    """`pointmix.ops.group_linear.difference_sums`."""
    out: Tensor = _Sums.apply(*(tensor.contiguous() for tensor in (feat, *_checked(near, anchor, len(feat)))))
    return out


def _checked(
    near: Int[Tensor, "S k"], anchor: Int[Tensor, "S"], points: int
) -> tuple[Int64[Tensor, "S k"], Int64[Tensor, "S"]]:
    """Neighbors and anchors that kernels may read."""
    check_indices(near, points)
    check_indices(anchor, points)
    return near.long(), anchor.expand(len(near)).long()


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, t: Tensor, scale: Tensor, near: Tensor, anchor: Tensor) -> Tensor:
        x = u.new_empty(*near.shape, u.shape[1])
        _run(kernels.ROWS, u=u, near=near, anchor=anchor, t=t, scale=scale, x=x)
        ctx.save_for_backward(u, scale, near, anchor)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        u, scale, near, anchor = ctx.saved_tensors
        du, dt = torch.empty_like(u), u.new_empty(len(near), u.shape[1])
        dscale = u.new_empty(-(-u.shape[1] // kernels.CHANNELS), len(near))
        given = dict(u=u, near=near, anchor=anchor, scale=scale, dx=dx)
        _run(kernels.ROWS_BACKWARD, **given, du=du, dt=dt, dscale=dscale)
        return du, dt, dscale.sum(0), None, None


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, near: Tensor, anchor: Tensor) -> Tensor:
        parts = u.new_empty(len(near), 2)
        _run(kernels.SPREAD, u=u, near=near, anchor=anchor, parts=parts)
        ctx.save_for_backward(u, near, anchor)
        return parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dparts: Tensor) -> tuple[Tensor | None, ...]:
        u, near, anchor = ctx.saved_tensors
        du = torch.empty_like(u)
        _run(kernels.SPREAD_BACKWARD, u=u, near=near, anchor=anchor, dparts=dparts, du=du)
        return du, None, None


def _run(phase: int, **arrays: Tensor) -> None:
    """A phase of `numba_kernels`."""
    u, near = arrays["u"], arrays["near"]
    sizes, parallel = (phase, len(u), *near.shape, u.shape[1], 0), near.numel() * u.shape[1] >= MIN_NUMBERS
    phases.run(_compiled(u.dtype), sizes, kernels.ARRAYS, arrays, parallel=parallel)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(np.float64 if dtype == torch.float64 else np.float32)
    return compiled_callback(work, kernels.__file__)
