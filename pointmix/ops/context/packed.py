"""`context_cluster` and its gradients on the CPU, of points that lie window by window, see `packed_kernels`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.context import packed_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.linear import linear
from pointmix.ops.mlp import NARROW
from pointmix.ops.mlp.pieces import add_product, points_per_piece
from pointmix.ops.precision import at_least_float32, autocast_dtype, in_float32
from pointmix.ops.similarity import least_length

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster


@in_float32
def context_cluster(
    x: Float[Tensor, "N C"],
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
    """`pointmix.ops.context.context_cluster` of points that lie window by window. Follows autocast.

    In bfloat16, only the queries of the points are computed in bfloat16, and the centers in float32.

    Args:
        x: features of the points.
        ptr: the points of window s are ptr[s] to ptr[s + 1].
        members: the centers around which each point lies; a center's features are the mean over its members.
        center_valid, wqv, bqv, wp, bp, alpha, beta, heads, denominator, unweighted: as there.
    """
    x = x.to(autocast_dtype(x) or x.dtype)
    wide = at_least_float32(x.dtype)
    weights = (t.to(wide) for t in (wqv, bqv, wp, bp, alpha, beta))
    by_count = denominator == "count" and not unweighted  # else the divisor is the sum of the weights
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (x, wqv, bqv))
    out, *_ = torch.ops.pointmix.context_cluster.default(
        x, ptr, members, center_valid, *weights, heads, by_count, unweighted, trained and x.shape[1] > NARROW
    )
    return cast(Tensor, out)


class _Windows(NamedTuple):
    """What has no gradient."""

    ptr: Tensor
    members: Tensor
    exists: Tensor
    heads: int
    by_count: bool
    unweighted: bool

    def run(self, phase: int, part: tuple[int, int], x: Tensor, size: tuple[int, int], **tensors: Tensor) -> None:
        """A phase of the windows in a range. `size`: channels of heads and of results."""
        first, last = part
        num_threads = torch.get_num_threads() if x.numel() >= MIN_NUMBERS else 1
        step = max((last - first) // (8 * num_threads), 1)
        shape = len(x), *self.exists.shape, self.heads, size[0], x.shape[1], size[1]
        sizes = kernels.Sizes(phase, first, last, step, *shape, self.by_count, self.unweighted, 0)
        tensors |= {"ptr": self.ptr, "members": self.members, "exists": self.exists, "x": x}
        addresses = {name: t.data_ptr() for name, t in tensors.items()}
        arrays = kernels.Arrays(sizes=ctypes.addressof(sizes), **addresses)
        threads.run(cast(int, _compiled(x.dtype).address), ctypes.addressof(arrays), num_threads)

    def pieces(self, points: int) -> Iterator[tuple[tuple[int, int], slice]]:
        """Ranges of windows, and of their points, of which there are about that many, so that queries fit the cache."""
        bounds = self.ptr.numpy()
        ends = np.searchsorted(bounds, np.arange(points, bounds[-1], points))
        for first, last in pairwise([0, *ends.tolist(), len(bounds) - 1]):
            if first < last:
                yield (first, last), slice(bounds[first], bounds[last])


@torch.autocast("cpu", enabled=False)
def run_forward(
    x: Float[Tensor, "N C"],
    ptr: Int[Tensor, "S1"],
    members: Bool[Tensor, "N M"],
    exists: Bool[Tensor, "S M"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
    wp: Float[Tensor, "K ED"],
    bp: Float[Tensor, "_"],
    alpha: Float[Tensor, "_"],
    beta: Float[Tensor, "_"],
    heads: int,
    by_count: bool,
    unweighted: bool,
    keep: bool,
) -> tuple[Tensor, ...]:
    """The outcome, and what `run_backward` needs: the queries of the points last, none unless they are to be kept."""
    if ptr[-1] != len(x) or len(members) != len(x):
        raise ValueError(f"windows hold {ptr[-1]} points, {len(members)} of them around centers, got {len(x)}")
    if alpha.shape != (1,) or beta.shape != (1,) or bp.shape != (len(wp),):
        shapes = tuple(alpha.shape), tuple(beta.shape), tuple(bp.shape)
        raise ValueError(f"alpha, beta and bp must be (1,), (1,) and ({len(wp)},), got {shapes}")
    x, wqv, bqv, wp, bp, alpha, beta = (t.contiguous().resolve_neg() for t in (x, wqv, bqv, wp, bp, alpha, beta))
    windows = _Windows(ptr.contiguous(), members.contiguous(), exists.contiguous(), heads, by_count, unweighted)
    number, centers = exists.shape
    (wq, wv), (bq, bv), wp = wqv.chunk(2), bqv.chunk(2), wp.t().unflatten(0, (heads, -1))
    channels, size = x.shape[1], (wp.shape[1], wp.shape[2])
    wv, bv, own_wq, own_bq = wv.unflatten(0, (heads, -1)), bv.view(heads, 1, -1), wq.to(x.dtype), bq.to(x.dtype)
    mean, y = wqv.new_empty(number, centers, channels), wqv.new_empty(heads, number * centers, channels)
    divisor, bias_scale = (wqv.new_empty(heads, number * centers, 1) for _ in range(2))
    weight, center = wqv.new_empty(len(x), heads), wqv.new_empty(len(x), heads, dtype=torch.int32)
    windows.run(kernels.POOL, (0, number), x, size, mean=mean)
    c = F.linear(mean.flatten(0, 1), wq, bq)  # (S M, E D)
    given = {"mean": mean, "c": c, "alpha": alpha, "beta": beta}
    made = {"y": y, "divisor": divisor, "bias_scale": bias_scale, "weight": weight, "center": center}
    kept = x.new_empty(len(x) if keep else 0, len(wq))
    for part, points in windows.pieces(points_per_piece(x, len(wq))):
        q = linear(x[points], own_wq, own_bq)
        windows.run(kernels.JOIN, part, x, size, q=q, **given, **made)
        if keep:
            kept[points] = q
    wv = wv.transpose(1, 2)
    g = torch.addcmul(y @ wv, bv, bias_scale) if by_count else torch.baddbmm(bv, y, wv)
    p, out = g @ wp, x.new_empty(len(x), size[1])  # (E, S M, K)
    given = {"weight": weight, "center": center, "p": p, "bias": bp}
    windows.run(kernels.DISPATCH, (0, number), x, size, **given, out=out)
    return out, mean, c, y, divisor, bias_scale, weight, center, g, p, kept


@torch.autocast("cpu", enabled=False)
def run_backward(
    dout: Float[Tensor, "N K"],
    x: Float[Tensor, "N C"],
    ptr: Int[Tensor, "S1"],
    members: Bool[Tensor, "N M"],
    exists: Bool[Tensor, "S M"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
    wp: Float[Tensor, "K ED"],
    alpha: Float[Tensor, "1"],
    mean: Float[Tensor, "S M C"],
    c: Float[Tensor, "SM ED"],
    y: Float[Tensor, "E SM C"],
    divisor: Float[Tensor, "E SM 1"],
    bias_scale: Float[Tensor, "E SM 1"],
    weight: Float[Tensor, "N E"],
    center: Int[Tensor, "N E"],
    g: Float[Tensor, "E SM D"],
    p: Float[Tensor, "E SM K"],
    kept: Float[Tensor, "_ ED"],
    heads: int,
    by_count: bool,
    unweighted: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x, wqv, bqv, wp, bp, alpha and beta."""
    dout, x, wqv, bqv, wp, alpha = (t.contiguous().resolve_neg() for t in (dout, x, wqv, bqv, wp, alpha))
    windows = _Windows(ptr.contiguous(), members.contiguous(), exists.contiguous(), heads, by_count, unweighted)
    wp = wp.t().unflatten(0, (heads, -1))
    _, dim, out_channels = wp.shape
    (wq, wv), (bq, bv) = wqv.chunk(2), bqv.chunk(2)
    wv, bv, own_wq, own_bq = wv.unflatten(0, (heads, -1)), bv.view(heads, 1, -1), wq.to(x.dtype), bq.to(x.dtype)
    number, size = len(exists), (dim, out_channels)
    joined = {"weight": weight, "center": center, "dweight": torch.empty_like(weight)}
    dp, dbias = torch.empty_like(p), p.new_empty(number, out_channels)
    given = {"p": p, "dout": dout, "dp": dp, "dbias": dbias}
    windows.run(kernels.DISPATCH_BACKWARD, (0, number), x, size, **joined, **given)
    dwp, dg = g.transpose(1, 2) @ dp, dp @ wp.transpose(1, 2)
    dwv, dy = dg.transpose(1, 2) @ y, dg @ wv
    dbv = (dg * bias_scale if by_count else dg).sum(1)
    dbias_scale = (dg * bv).sum(-1) if by_count else divisor
    dx, dmean, dc = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(c)
    dbq, dscalars = p.new_empty(number, heads * dim), p.new_empty(number, 2)
    given = {"c": c, "y": y, "divisor": divisor, "alpha": alpha, "dy": dy, "dbias_scale": dbias_scale}
    made = {"dx": dx, "dmean": dmean, "dc": dc, "dbq": dbq, "dscalars": dscalars}
    dwq = torch.zeros_like(wq)
    for part, points in windows.pieces(points_per_piece(x, len(wq))):
        q = kept[points] if len(kept) else linear(x[points], own_wq, own_bq)
        dq = torch.empty_like(q) if len(kept) else q
        windows.run(kernels.JOIN_BACKWARD, part, x, size, q=q, dq=dq, **joined, **given, **made)
        dx[points].addmm_(dq, own_wq)
        add_product(dwq, dq, x[points])
    dmean.view(len(c), -1).addmm_(dc, wq)
    dwq.addmm_(dc.t(), mean.flatten(0, 1))
    windows.run(kernels.POOL_BACKWARD, (0, number), x, size, dmean=dmean, dx=dx)
    dwqv, dbqv = torch.cat([dwq, dwv.flatten(0, 1)]), torch.cat([dbq.sum(0), dbv.flatten()])
    dalpha, dbeta = (t.sum(0) for t in dscalars.split(1, dim=1))
    return dx, dwqv, dbqv, dwp.flatten(0, 1).t().contiguous(), dbias.sum(0), dalpha, dbeta


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    points = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}[dtype]
    wide = np.float64 if dtype == torch.float64 else np.float32
    work = kernels.work_for(points, wide, least_length(at_least_float32(dtype)))
    return compiled_callback(work, kernels.__file__)
