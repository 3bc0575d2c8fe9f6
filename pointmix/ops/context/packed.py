"""`context_cluster` on the CPU with gradients, of points that lie window by window, see `packed_kernels`."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointmix.ops.context import packed_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.precision import at_least_float32, autocast_dtype, in_float32
from pointmix.ops.similarity import length

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster


class Windows(NamedTuple):
    """The fields of `PackedPlan` that the kernels take, and the number of heads."""

    ptr: Int[Tensor, "S1"]
    members: Bool[Tensor, "N M"]
    exists: Bool[Tensor, "S M"]
    heads: int


@in_float32
def context_cluster(
    x: Float[Tensor, "N C"],
    size: Float[Tensor, "N E"],
    ptr: Int[Tensor, "S1"],
    members: Bool[Tensor, "N M"],
    center_valid: Bool[Tensor, "S M"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
    wp: Float[Tensor, "K ED"],
    bp: Float[Tensor, "K"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
    *,
    heads: int,
    denominator: str = "weights",
    unweighted: bool = False,
) -> Float[Tensor, "N K"]:
    """`pointmix.ops.context.context_cluster` of points that lie window by window.

    Args:
        x: features of the points.
        size: length of each point's query in each head.
        ptr, members: as in `PackedPlan`.
        center_valid, wqv, bqv, wp, bp, alpha, beta, heads, denominator, unweighted: as there.
    """
    if (dtype := autocast_dtype(x)) is not None:
        x, size, wqv, bqv, wp = (t.to(dtype) for t in (x, size, wqv, bqv, wp))
    wide = at_least_float32(x.dtype)
    windows = Windows(ptr.contiguous(), members.contiguous(), center_valid.contiguous(), heads)
    (wq, wv), (bq, bv) = wqv.unflatten(0, (2, heads, -1)), bqv.unflatten(0, (2, heads, -1))  # (E, D, C), (E, D)
    x, alpha, beta = x.contiguous(), alpha.to(wide), beta.to(wide)
    mean = _Pool.apply(x, windows)
    c = F.linear(mean.flatten(0, 1).to(x.dtype), wq.flatten(0, 1), bq.flatten()).unflatten(1, (heads, -1))  # (S M, E, D)
    c = c * (alpha / length(c).unsqueeze(-1))
    key = (c.transpose(0, 1).to(wq.dtype) @ wq).to(wide)  # (E, S M, C)
    offset = (c * bq).sum(-1).to(wide)  # (S M, E)
    y, total, count, a, center = _Join.apply(x, size, mean, key, offset, alpha, beta, windows, unweighted)
    g = y.to(wv.dtype) @ wv.transpose(1, 2)  # (E, S M, D)
    if denominator == "count":
        g = torch.addcmul(g, bv.unsqueeze(1), total.unsqueeze(-1)) / count.unsqueeze(-1)
    else:
        g = torch.addcdiv(bv.unsqueeze(1), g, total.unsqueeze(-1))
    p = g.to(wp.dtype) @ wp.t().unflatten(0, (heads, -1))  # (E, S M, K)
    return _Dispatch.apply(a, center, p.to(wide), bp.to(wide), windows, x.dtype)


def _run(
    phase: int, windows: Windows, dtype: torch.dtype, channels: int, unweighted: bool = False, **tensors: Tensor
) -> None:
    points, (number, centers) = len(windows.members), windows.exists.shape
    num_threads = torch.get_num_threads() if points * channels >= MIN_NUMBERS else 1
    step = max(number // (8 * num_threads), 1)
    sizes = kernels.Sizes(phase, points, number, centers, windows.heads, channels, unweighted, step, 0)
    tensors |= {"ptr": windows.ptr, "members": windows.members, "exists": windows.exists}
    addresses = {name: t.data_ptr() for name, t in tensors.items()}
    arrays = kernels.Arrays(sizes=ctypes.addressof(sizes), **addresses)
    threads.run(cast(int, _compiled(dtype).address), ctypes.addressof(arrays), num_threads)


class _Pool(torch.autograd.Function):
    """Mean features of the points around each center."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        mean = x.new_empty(*windows.exists.shape, x.shape[1], dtype=at_least_float32(x.dtype))
        _run(kernels.POOL, windows, x.dtype, x.shape[1], x=x, mean=mean)
        ctx.windows, ctx.dtype = windows, x.dtype
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dmean: Tensor) -> tuple[Tensor, None]:
        dmean = dmean.contiguous()
        dx = dmean.new_empty(len(ctx.windows.members), dmean.shape[2], dtype=ctx.dtype)
        _run(kernels.POOL_BACKWARD, ctx.windows, ctx.dtype, dmean.shape[2], dmean=dmean, dx=dx)
        return dx, None


class _Join(torch.autograd.Function):
    """y (E, S M, C), total and count (E, S M) of the centers, weight and center (N, E) of the points."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        size: Tensor,
        mean: Tensor,
        key: Tensor,
        offset: Tensor,
        alpha: Tensor,
        beta: Tensor,
        windows: Windows,
        unweighted: bool,
    ) -> tuple[Tensor, ...]:
        given = {"x": x, "size": size.contiguous(), "key": key.contiguous(), "offset": offset.contiguous()}
        y, total, count = torch.empty_like(given["key"]), *key.new_empty(2, *key.shape[:2])
        weight, center = key.new_empty(size.shape), key.new_empty(size.shape, dtype=torch.int32)
        made = {"y": y, "total": total, "count": count, "weight": weight, "center": center}
        given["alpha"] = alpha
        _run(kernels.JOIN, windows, x.dtype, x.shape[1], unweighted, **given, **made, mean=mean, beta=beta)
        ctx.save_for_backward(*given.values(), weight, center)
        ctx.windows, ctx.unweighted = windows, unweighted
        ctx.mark_non_differentiable(count, center)
        return y, total, count, weight, center

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor, dtotal: Tensor, _: Tensor, dweight: Tensor, __: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, size, key, offset, alpha, weight, center = ctx.saved_tensors
        number, centers = ctx.windows.exists.shape
        made = {"dx": torch.empty_like(x), "dsize": torch.empty_like(size), "dkey": torch.empty_like(key)}
        made |= {"doffset": torch.empty_like(offset), "dmean": key.new_empty(number, centers, x.shape[1])}
        made["dscalars"] = key.new_empty(number, 2)
        given = {"x": x, "size": size, "key": key, "offset": offset, "alpha": alpha, "weight": weight, "center": center}
        grads = {"dy": dy.contiguous(), "dtotal": dtotal.contiguous(), "dweight": dweight.contiguous()}
        _run(kernels.JOIN_BACKWARD, ctx.windows, x.dtype, x.shape[1], ctx.unweighted, **given, **grads, **made)
        dbound, dbeta = made["dscalars"].sum(0).split(1)
        first = (made[name] for name in ("dx", "dsize", "dmean", "dkey", "doffset"))
        return *first, dbound * alpha.sign(), dbeta, None, None


class _Dispatch(torch.autograd.Function):
    """Each point's weighted sum over its centers, plus the bias."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, center: Tensor, p: Tensor, bias: Tensor, windows: Windows, dtype: torch.dtype
    ) -> Tensor:
        p, out = p.contiguous(), p.new_empty(len(weight), p.shape[2], dtype=dtype)
        given = {"weight": weight, "center": center, "p": p, "bias": bias.contiguous()}
        _run(kernels.DISPATCH, windows, dtype, p.shape[2], **given, out=out)
        ctx.save_for_backward(weight, center, p)
        ctx.windows = windows
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        weight, center, p = ctx.saved_tensors
        dweight, dp, dbias = torch.empty_like(weight), torch.empty_like(p), p.new_empty(len(ctx.windows.exists), p.shape[2])
        given = {"weight": weight, "center": center, "p": p, "dout": dout.contiguous()}
        made = {"dweight": dweight, "dp": dp, "dbias": dbias}
        _run(kernels.DISPATCH_BACKWARD, ctx.windows, dout.dtype, p.shape[2], **given, **made)
        return dweight, None, dp, dbias.sum(0), None, None


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    points = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}[dtype]
    work = kernels.work_for(points, np.float64 if dtype == torch.float64 else np.float32)
    return compiled_callback(work, kernels.SIGNATURE, kernels.__file__)
