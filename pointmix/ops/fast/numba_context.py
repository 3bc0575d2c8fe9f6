"""Context clustering on the CPU without gradients and without rows, see `windows`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numba import cfunc
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.fast import team, windows
from pointmix.ops.fast.compiled import BROKEN, tell
from pointmix.ops.linear import linear
from pointmix.ops.mlp import piece_of
from pointmix.ops.similarity import least_length

SHARED = 2**18  # multiplications from which on threads are worth waking


def context_cluster(
    x: Float[Tensor, "N C"],
    ptr: Int[Tensor, "S+1"],
    members: Bool[Tensor, "N M"],
    center_valid: Bool[Tensor, "S M"],
    wqv: Float[Tensor, "2ED C"],
    bqv: Float[Tensor, "2ED"],
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
        ptr: window s has the points ptr[s] to ptr[s + 1].
        members: which centers of its window each point lies around; their mean features are the center's.
        center_valid, wqv, bqv, wp, bp, alpha, beta, heads, denominator, unweighted: as there.
    """
    (points, channels), (sets, centers) = x.shape, center_valid.shape
    x, alpha, beta, bp = (t.contiguous().resolve_neg() for t in (x, alpha, beta, bp))
    bounds, members, exists = ptr.contiguous().numpy(), members.contiguous(), center_valid.contiguous()
    if bounds[-1] != points or len(members) != points:
        raise ValueError(f"windows hold {bounds[-1]} points, {len(members)} of them around centers, got {points}")
    if alpha.shape != (1,) or beta.shape != (1,) or bp.shape != (len(wp),):
        shapes = tuple(alpha.shape), tuple(beta.shape), tuple(bp.shape)
        raise ValueError(f"alpha, beta and bp must be (1,), (1,) and ({len(wp)},), got {shapes}")
    (wq, wv), (bq, bv) = wqv.chunk(2), bqv.chunk(2)
    wv, wp, bv = wv.unflatten(0, (heads, -1)), wp.t().unflatten(0, (heads, -1)), bv.view(heads, 1, -1)
    dim, wide, by_number = wv.shape[1], wp.shape[2], denominator == "count" or unweighted
    sizes = windows.Sizes(0, 0, 0, 0, points, sets, centers, heads, dim, channels, wide, by_number, unweighted)
    mean, center = x.new_empty(sets, centers, channels), x.new_empty(points, heads, dtype=torch.int32)
    weight, out = x.new_empty(points, heads), x.new_empty(points, wide)
    y, share = x.new_empty(heads, sets, centers, channels), x.new_empty(heads, sets, centers)
    given = {"members": members, "exists": exists, "alpha": alpha, "beta": beta, "x": x, "bias": bp}
    made = {"mean": mean, "center": center, "weight": weight, "out": out, "y": y, "share": share}
    arrays = windows.Arrays(ctypes.addressof(sizes), bounds.ctypes.data)
    address = _compiled(x.dtype).address
    threads = torch.get_num_threads() if points * heads * (centers * dim + channels) >= SHARED else 1

    def run(phase: int, first: int = 0, last: int = sets, **tensors: Tensor) -> None:
        for name, t in tensors.items():
            setattr(arrays, name, t.data_ptr())
        sizes.phase, sizes.first, sizes.last, sizes.counter = phase, first, last, 0
        sizes.step = max((last - first) // (8 * threads), 1)
        team.run(address, ctypes.addressof(arrays), threads)

    run(windows.POOL, **given, **made)
    c = F.linear(mean.view(-1, channels), wq, bq)  # (S M, E D)
    for first, last in _pieces(bounds, piece_of(x, len(wq))):
        run(windows.ASSIGN, first, last, q=linear(x[bounds[first] : bounds[last]], wq, bq), c=c)
    weight.sigmoid_()
    run(windows.AGGREGATE)
    y, wv = y.flatten(1, 2), wv.transpose(1, 2)  # (E, S M, C), (E, C, D)
    g = torch.addcmul(y @ wv, bv, share.view(heads, -1, 1)) if by_number else torch.baddbmm(bv, y, wv)
    run(windows.SPREAD, p=g @ wp)  # (E, S M, K)
    return out


def _pieces(bounds: Int[np.ndarray, "S+1"], points: int) -> Iterator[tuple[int, int]]:
    """Windows `first` to `last` that together have about so many points, whose queries fit the cache."""
    ends = np.searchsorted(bounds, np.arange(points, bounds[-1], points))
    return ((int(first), int(last)) for first, last in pairwise([0, *ends, len(bounds) - 1]) if first < last)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    """`windows.work_for`, kept on disk where there is a place for it."""
    work = windows.work_for(np.float64 if dtype == torch.float64 else np.float32, least_length(dtype))
    try:
        return cfunc(windows.SIGNATURE, cache=True)(work)
    except RuntimeError:  # no folder to write to
        return cfunc(windows.SIGNATURE)(work)
    except BROKEN as error:
        tell("windows", os.environ.get("NUMBA_CACHE_DIR") or str(Path(windows.__file__).parent / "__pycache__"), error)
        return cfunc(windows.SIGNATURE)(work)
