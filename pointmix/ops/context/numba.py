"""`context_cluster` on the CPU for inference, on points that lie window by window, see `numba_kernels`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numba.core.ccallback import CFunc
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pointmix.ops.context import numba_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.kernels.operators import operator
from pointmix.ops.linear import linear
from pointmix.ops.mlp.pieces import points_per_piece
from pointmix.ops.similarity import least_length

Shape = Sequence[int]
MIN_MULTIPLICATIONS = 2**18  # with fewer multiplications, one thread is faster


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
    """`pointmix.ops.context.context_cluster` of points that lie window by window.

    Args:
        x: features of the points.
        ptr: the points of window s are ptr[s] to ptr[s + 1].
        members: the centers around which each point lies; a center's features are the mean over its members.
        center_valid, wqv, bqv, wp, bp, alpha, beta, heads, denominator, unweighted: as there.
    """
    by_number = denominator == "count" or unweighted
    weights = wqv, bqv, wp, bp, alpha, beta
    return _operator(x, ptr, members, center_valid, *weights, heads, by_number, unweighted)


def _context_cluster(
    x: Float[Tensor, "N C"],
    ptr: Int[Tensor, "S1"],
    members: Bool[Tensor, "N M"],
    center_valid: Bool[Tensor, "S M"],
    wqv: Float[Tensor, "QV C"],
    bqv: Float[Tensor, "QV"],
    wp: Float[Tensor, "K ED"],
    bp: Float[Tensor, "_"],
    alpha: Float[Tensor, "_"],
    beta: Float[Tensor, "_"],
    heads: int,
    by_number: bool,
    unweighted: bool,
) -> Float[Tensor, "N K"]:
    (points, channels), (windows, centers) = x.shape, center_valid.shape
    x, alpha, beta, bp = (t.contiguous().resolve_neg() for t in (x, alpha, beta, bp))
    bounds, members, exists = ptr.contiguous().numpy(), members.contiguous(), center_valid.contiguous()
    if bounds[-1] != points or len(members) != points:
        raise ValueError(f"windows hold {bounds[-1]} points, {len(members)} of them around centers, got {points}")
    if alpha.shape != (1,) or beta.shape != (1,) or bp.shape != (len(wp),):
        shapes = tuple(alpha.shape), tuple(beta.shape), tuple(bp.shape)
        raise ValueError(f"alpha, beta and bp must be (1,), (1,) and ({len(wp)},), got {shapes}")
    (wq, wv), (bq, bv) = wqv.chunk(2), bqv.chunk(2)
    wv, wp, bv = wv.unflatten(0, (heads, -1)), wp.t().unflatten(0, (heads, -1)), bv.view(heads, 1, -1)
    dim, out_channels = wv.shape[1], wp.shape[2]
    shape = points, windows, centers, heads, dim, channels, out_channels
    sizes = kernels.Sizes(0, 0, 0, 0, *shape, by_number, unweighted)
    mean, center = x.new_empty(windows, centers, channels), x.new_empty(points, heads, dtype=torch.int32)
    weight, out = x.new_empty(points, heads), x.new_empty(points, out_channels)
    y, bias_scale = x.new_empty(heads, windows, centers, channels), x.new_empty(heads, windows, centers)
    given = {"members": members, "exists": exists, "alpha": alpha, "beta": beta, "x": x, "bias": bp}
    made = {"mean": mean, "center": center, "weight": weight, "out": out, "y": y, "bias_scale": bias_scale}
    arrays = kernels.Arrays(ctypes.addressof(sizes), bounds.ctypes.data)
    address = cast(int, _compiled(x.dtype).address)
    large = points * heads * (centers * dim + channels) >= MIN_MULTIPLICATIONS
    num_threads = torch.get_num_threads() if large else 1

    def run(phase: int, first: int = 0, last: int = windows, **tensors: Tensor) -> None:
        for name, t in tensors.items():
            setattr(arrays, name, t.data_ptr())
        sizes.phase, sizes.first, sizes.last, sizes.counter = phase, first, last, 0
        sizes.step = max((last - first) // (8 * num_threads), 1)
        threads.run(address, ctypes.addressof(arrays), num_threads)

    run(kernels.POOL, 0, windows, **given, **made)
    c = F.linear(mean.view(-1, channels), wq, bq)  # (S M, E D)
    for first, last in _pieces(bounds, points_per_piece(x, len(wq))):
        run(kernels.ASSIGN, first, last, q=linear(x[bounds[first] : bounds[last]], wq, bq), c=c)
    weight.sigmoid_()
    run(kernels.AGGREGATE)
    y, wv = y.flatten(1, 2), wv.transpose(1, 2)  # (E, S M, C), (E, C, D)
    g = torch.addcmul(y @ wv, bv, bias_scale.view(heads, -1, 1)) if by_number else torch.baddbmm(bv, y, wv)
    run(kernels.DISPATCH, p=g @ wp)  # (E, S M, K)
    return out


def _fake(
    x: Tensor, ptr: Tensor, members: Tensor, center_valid: Tensor, wqv: Tensor, bqv: Tensor, wp: Tensor, *rest: object
) -> Tensor:
    return x.new_empty(x.shape[0], wp.shape[0])


_operator = operator(
    "numba_context_cluster(Tensor x, Tensor ptr, Tensor members, Tensor center_valid, Tensor wqv, Tensor bqv, "
    "Tensor wp, Tensor bp, Tensor alpha, Tensor beta, int heads, bool by_number, bool unweighted) -> Tensor",
    _context_cluster,
    _fake,
    floating=True,
)


@register_flop_formula(torch.ops.pointmix.numba_context_cluster)
def _flops(
    x: Shape,
    ptr: Shape,
    members: Shape,
    center_valid: Shape,
    wqv: Shape,
    bqv: Shape,
    wp: Shape,
    bp: Shape,
    alpha: Shape,
    beta: Shape,
    heads: int,
    *rules: bool,
    out_shape: Shape,
    **kwargs: object,
) -> int:
    """Floating-point operations of the products, given the shapes."""
    (points, channels), (windows, centers), (out_channels, width) = x, center_valid, wp
    at_points = channels * width + centers * width + heads * channels + heads * out_channels
    at_centers = 2 * channels * width + width * out_channels
    return 2 * (points * at_points + windows * centers * at_centers)


def _pieces(bounds: Int[np.ndarray, "S1"], points: int) -> Iterator[tuple[int, int]]:
    """Ranges of windows, from first to last, with about that many points each, so that their queries fit the cache."""
    ends = np.searchsorted(bounds, np.arange(points, bounds[-1], points))
    return ((int(first), int(last)) for first, last in pairwise([0, *ends, len(bounds) - 1]) if first < last)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(np.float64 if dtype == torch.float64 else np.float32, least_length(dtype))
    return compiled_callback(work, kernels.SIGNATURE, kernels.__file__)
