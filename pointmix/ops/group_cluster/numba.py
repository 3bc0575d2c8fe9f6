"""`cluster_group` for training on the CPU: the neighbors are read as few times as possible, see `numba_kernels`."""

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

from pointmix.ops.group_cluster import numba_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.linear import linear, rows_product
from pointmix.ops.similarity import least_length

STORED = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}
MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster


def cluster_group(
    x: Float[Tensor, "G k C"],
    wq: Float[Tensor, "D C"],
    bq: Float[Tensor, "D"],
    wv: Float[Tensor, "D C"],
    bv: Float[Tensor, "D"],
    wp: Float[Tensor, "C D"],
    bp: Float[Tensor, "C"],
    alpha: Float[Tensor, "1"],
    beta: Float[Tensor, "1"],
) -> Float[Tensor, "G k C"]:
    """`pointmix.ops.group_cluster.cluster_group`, with a gradient of its own."""
    wp, bp = wp.expand(x.shape[2], -1), bp.expand(x.shape[2])  # kernels do not check shapes: raises if they do not fit
    wq, bq = wq.to(x.dtype), bq.to(x.dtype)  # what there is for each neighbor may be bfloat16, for each group not
    out: Tensor = _Cluster.apply(x.contiguous(), wq, bq, wv, bv, wp, bp, alpha, beta)
    return out


class _Cluster(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        wq: Tensor,
        bq: Tensor,
        wv: Tensor,
        bv: Tensor,
        wp: Tensor,
        bp: Tensor,
        alpha: Tensor,
        beta: Tensor,
    ) -> Tensor:
        q, s, mean, y = (
            linear(x.flatten(0, 1), wq, bq).unflatten(0, x.shape[:2]),
            wv.new_empty(x.shape[:2]),
            wv.new_empty(len(x), x.shape[2]),
            x.new_empty(x.shape),
        )
        _run(kernels.WEIGH, x=x, q=q, alpha=alpha, beta=beta, s=s, mean=mean)
        g = linear(mean, wv, bv)  # (G, D)
        p = linear(g, wp)  # (G, C)
        _run(kernels.DISPATCH, x=x, q=q, s=s, p=p, bias=bp, y=y)
        ctx.save_for_backward(x, q, s, mean, g, p, wq, wv, wp, alpha)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, q, s, mean, g, p, wq, wv, wp, alpha = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # kernels read what products make
            dy = dy.contiguous()
            dp, db, ds = torch.empty_like(p), torch.empty_like(p), torch.empty_like(s)
            _run(kernels.GATHER, x=x, q=q, dy=dy, s=s, p=p, dp=dp, db=db, ds=ds)
            dg = linear(dp, wp.t())
            dmean = linear(dg, wv.t())
            w, dq, dscale = torch.empty_like(s), torch.empty_like(q), s.new_empty(len(s), 2)
            _run(kernels.BACKWARD, x=x, q=q, alpha=alpha, s=s, dmean=dmean, ds=ds, w=w, dq=dq, dscale=dscale)
            rows = dq.flatten(0, 1)
            dx = linear(rows, wq.t()).unflatten(0, x.shape[:2])
            _run(kernels.ADD, x=x, q=q, dx=dx, dy=dy, w=w, dmean=dmean)
            dalpha, dbeta = dscale.sum(0).split(1)
            dbq = (rows.t() @ rows.new_ones(len(rows), 1)).squeeze(1)  # several times faster than a sum over rows
            weights = rows_product(rows, x.flatten(0, 1)), dbq, dg.t() @ mean, dg.sum(0), dp.t() @ g, db.sum(0)
        return dx, *weights, dalpha, dbeta


def _run(phase: int, **arrays: Tensor) -> None:
    """A phase of `numba_kernels`, on contiguous arrays."""
    x = arrays["x"]
    sizes = (ctypes.c_int64 * kernels.SIZES)(phase, *x.shape, arrays["q"].shape[-1], 0)
    held = {name: t.contiguous() for name, t in arrays.items()}
    pointers = [held[name].data_ptr() if name in held else None for name in kernels.ARRAYS]
    at = (ctypes.c_void_p * (1 + len(pointers)))(ctypes.addressof(sizes), *pointers)
    num_threads = torch.get_num_threads() if x.numel() >= MIN_NUMBERS else 1
    threads.run(cast(int, _compiled(x.dtype).address), ctypes.addressof(at), num_threads)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(STORED[dtype], np.float64 if dtype == torch.float64 else np.float32, least_length(dtype))
    return compiled_callback(work, kernels.__file__)
