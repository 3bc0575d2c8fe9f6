"""`context_cluster` and its gradients on the CPU, of points that lie window by window, see `packed_kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.ops.context import packed_kernels as kernels
from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.tiles import Kernel, run
from pointmix.ops.linear import linear, rows_product
from pointmix.ops.mlp import NARROW
from pointmix.ops.mlp.pieces import points_per_piece
from pointmix.ops.precision import at_least_float32, autocast_dtype, in_float32
from pointmix.ops.similarity import least_length

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster
ROOM = 2**17  # numbers of the largest results of centers that a thread has room for: half a MiB


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
    weights = [t if t.dtype == wide else t.to(wide) for t in (wqv, bqv, wp, bp, alpha, beta)]
    by_count = denominator == "count" and not unweighted  # else the divisor is the sum of the weights
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (x, wqv, bqv))
    out, *_ = torch.ops.pointmix.context_cluster.default(
        x, ptr, members, center_valid, *weights, heads, by_count, unweighted, trained and x.shape[1] > NARROW
    )
    return cast(Tensor, out)


def _sizes(
    x: Float[Tensor, "N C"], exists: Bool[Tensor, "S M"], wp: Float[Tensor, "K ED"], heads: int, *rules: bool
) -> kernels.Sizes:
    """Sizes of all windows."""
    chunks = torch.get_num_threads() if x.numel() >= MIN_NUMBERS else 1
    (windows, centers), (out_channels, width) = exists.shape, wp.shape
    points, channels = x.shape
    shape = points, windows, centers, heads, width // heads, channels, out_channels
    gemm = 0 if x.dtype == torch.float64 else sgemm_address()
    room = min(max(ROOM // max(heads * centers * (channels + out_channels), 1), 1), windows)
    padded = -(-room * centers // 16) * 16  # see `room_for`
    numbers = padded * (channels + 2 * width + heads * (channels + out_channels + 2))
    return kernels.Sizes(0, windows, *shape, *rules, gemm, chunks, room, numbers, 0)


def _pieces(ptr: Int[Tensor, "S1"], points: int) -> Iterator[tuple[int, int, slice]]:
    """Ranges of windows, and their points, of which there are about that many, so that queries fit the cache."""
    bounds = ptr.numpy()
    if points >= bounds[-1] > 0:
        yield 0, len(bounds) - 1, slice(0, bounds[-1])
        return
    ends = np.searchsorted(bounds, np.arange(points, bounds[-1], points))
    for first, last in pairwise([0, *ends.tolist(), len(bounds) - 1]):
        if first < last:
            yield first, last, slice(bounds[first], bounds[last])


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
    """The outcome, and what `run_backward` needs: the weight of each point, its center in its window, and its queries
    if they are to be kept."""
    biases = dict(bp=(bp, wqv.dtype, (len(wp),)), beta=(beta, wqv.dtype, (1,)))
    _check(x, ptr, members, exists, wqv, bqv, wp, alpha, heads, **biases)
    x, wqv, bqv, wp, bp, alpha, beta = (t.contiguous().resolve_neg() for t in (x, wqv, bqv, wp, bp, alpha, beta))
    sizes, kernel = _sizes(x, exists, wp, heads, by_count, unweighted), _kernels(x.dtype)[0]
    out_channels, width = wp.shape
    wq, bq = wqv[:width].to(x.dtype), bqv[:width].to(x.dtype)
    out, kept = x.new_empty(len(x), out_channels), x.new_empty(len(x) if keep else 0, width)
    weight, center = wqv.new_empty(len(x), heads), wqv.new_empty(len(x), heads, dtype=torch.int32)
    given, room = (ptr, members, exists, wqv, bqv, wp, bp, alpha, beta, x), wqv.new_empty(sizes.chunks, sizes.numbers)
    for first, last, points in _pieces(ptr, points_per_piece(x, width)):
        sizes.first, sizes.last, sizes.counter = first, last, 0
        q = linear(x[points], wq, bq)
        run(kernel, sizes, *given, q, out, weight, center, room)
        if keep:
            kept[points] = q
    return out, weight, center, kept


def _check(
    x: Tensor,
    ptr: Tensor,
    members: Tensor,
    exists: Tensor,
    wqv: Tensor,
    bqv: Tensor,
    wp: Tensor,
    alpha: Tensor,
    heads: int,
    **others: tuple[Tensor, torch.dtype, tuple[int, ...]],
) -> None:
    """Raise ValueError if the kernels, which check nothing, would read other memory than that of the tensors.

    Args:
        others: further tensors, their dtypes and shapes.
    """
    (points, channels), (windows, centers), (out_channels, width) = x.shape, exists.shape, wp.shape
    wide = at_least_float32(x.dtype)
    expected = {
        "ptr": (torch.int64, windows + 1),
        "members": (torch.bool, points, centers),
        "center_valid": (torch.bool, windows, centers),
        "wqv": (wide, 2 * width, channels),
        "bqv": (wide, 2 * width),
        "wp": (wide, out_channels, width),
        "alpha": (wide, 1),
        **{name: (dtype, *shape) for name, (_, dtype, shape) in others.items()},
    }
    given = ptr, members, exists, wqv, bqv, wp, alpha, *(t for t, *_ in others.values())
    found = [(t.dtype, *t.shape) for t in given]
    if found != list(expected.values()):
        pairs = zip(expected.items(), found, strict=True)
        name, (dtype, *shape), other = next((name, want, got) for (name, want), got in pairs if got != want)
        raise ValueError(f"{name} must be {dtype} {tuple(shape)}, got {other[0]} {other[1:]}")
    if heads < 1 or width % heads:
        raise ValueError(f"{width} channels of queries do not divide into {heads} heads")
    bounds = ptr.numpy()
    if bounds[0] != 0 or bounds[-1] != points or (bounds[1:] < bounds[:-1]).any():
        raise ValueError(f"ptr must ascend from 0 to {points}, the number of points, got {bounds}")


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
    weight: Float[Tensor, "N E"],
    center: Int[Tensor, "N E"],
    queries: Float[Tensor, "_ ED"],
    heads: int,
    by_count: bool,
    unweighted: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x, wqv, bqv, wp, bp, alpha and beta. Sums over the points depend on the number of threads."""
    made = dict(
        dout=(dout, x.dtype, (len(x), len(wp))),
        weight=(weight, wqv.dtype, (len(x), heads)),
        center=(center, torch.int32, (len(x), heads)),
        queries=(queries, x.dtype, (len(x) if len(queries) else 0, wp.shape[1])),
    )
    _check(x, ptr, members, exists, wqv, bqv, wp, alpha, heads, **made)
    dout, x, wqv, bqv, wp, alpha = (t.contiguous().resolve_neg() for t in (dout, x, wqv, bqv, wp, alpha))
    sizes, kernel = _sizes(x, exists, wp, heads, by_count, unweighted), _kernels(x.dtype)[1]
    out_channels, width = wp.shape
    wq, bq = wqv[:width].to(x.dtype), bqv[:width].to(x.dtype)
    lengths = [wqv.numel(), wp.numel(), len(bqv), out_channels, 1, 1]
    dx, sums = torch.empty_like(x), wqv.new_zeros(sizes.chunks, sum(lengths))
    dwq = sums[0, : wq.numel()].view(wq.shape)  # the first chunk's; of queries of the points and of the centers
    given, room = (ptr, members, wqv, bqv, wp, alpha, x), wqv.new_empty(sizes.chunks, 2, sizes.numbers)
    for first, last, points in _pieces(ptr, points_per_piece(x, width)):
        q = queries[points] if len(queries) else linear(x[points], wq, bq)
        dq = torch.empty_like(q) if len(queries) else q
        sizes.first, sizes.last, sizes.counter = first, last, 0
        run(kernel, sizes, *given, q, weight, center, dout, dq, dx, sums, room)
        dx[points] = linear(dq, wq.t(), plus=dx[points])
        dwq += rows_product(dq, x[points])
    dwqv, dwp, *others = (t.sum(0) for t in sums.split(lengths, 1))
    return dx, dwqv.view(wqv.shape), others[0], dwp.view(wp.shape), *others[1:]


@cache
def _kernels(dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """The compiled forward and backward pass of points of a dtype."""
    points = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.uint16}[dtype]
    wide = np.float64 if dtype == torch.float64 else np.float32
    return kernels.kernels_for(points, wide, least_length(at_least_float32(dtype)))
