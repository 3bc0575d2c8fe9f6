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
from jaxtyping import Bool, Float, Int
from numba import cfunc
from torch import Tensor

from pointmix.ops.fast import team, windows
from pointmix.ops.fast.compiled import BROKEN, tell
from pointmix.ops.linear import linear
from pointmix.ops.mlp import CACHED
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
    x, (points, channels), (sets, centers) = x.contiguous(), x.shape, center_valid.shape
    if ptr[-1] != points or len(members) != points:
        raise ValueError(f"windows hold {int(ptr[-1])} points, {len(members)} of them around centers, got {points}")
    (wq, wv), (bq, bv) = wqv.chunk(2), bqv.chunk(2)
    wv, wp = wv.unflatten(0, (heads, -1)), wp.t().unflatten(0, (heads, -1))  # (E, D, C), (E, D, K)
    dim, wide = wv.shape[1], wp.shape[2]
    rules = denominator == "count" or unweighted, unweighted
    sizes = torch.tensor([0, 0, 0, 0, points, sets, centers, heads, dim, channels, wide, *rules])
    arrays = {
        "sizes": sizes,
        "counter": sizes.new_zeros(1),
        "ptr": ptr.contiguous(),
        "members": members.contiguous(),
        "exists": center_valid.contiguous(),
        "numbers": torch.cat([alpha, beta, alpha.new_full((1,), least_length(x.dtype))]),
        "x": x,
        "mean": x.new_empty(sets, centers, channels),
        "center": ptr.new_empty(points, heads, dtype=torch.int32),
        "weight": x.new_empty(points, heads),
        "y": x.new_empty(heads, sets, centers, channels),
        "share": x.new_empty(heads, sets, centers),
        "bias": bp.contiguous(),
        "out": x.new_empty(points, wide),
    }
    address, table = _compiled(x.dtype), (ctypes.c_void_p * len(windows.ARRAYS))()
    threads = torch.get_num_threads() if points * heads * (centers * dim + channels) >= SHARED else 1

    def run(phase: int, first: int = 0, last: int = sets, **more: Tensor) -> None:
        sizes[:4] = torch.tensor([phase, first, last, max((last - first) // (8 * threads), 1)])
        arrays["counter"].zero_()
        for name, t in (arrays | more).items():
            table[windows.ARRAYS.index(name)] = t.data_ptr()
        team.run(address, ctypes.addressof(table), threads)

    run(windows.POOL)
    c = linear(arrays["mean"].view(-1, channels), wq, bq)  # (S M, E D)
    for first, last in _pieces(ptr, max(CACHED // len(wq), 1)):
        run(windows.ASSIGN, first, last, q=linear(x[ptr[first] : ptr[last]], wq, bq), c=c)
    arrays["weight"].sigmoid_()
    run(windows.AGGREGATE)
    g = arrays["y"].flatten(1, 2) @ wv.transpose(1, 2)  # (E, S M, D)
    g = torch.addcmul(g, bv.view(heads, 1, dim), arrays["share"].flatten(1).unsqueeze(-1))
    run(windows.SPREAD, p=g @ wp)  # (E, S M, K)
    return arrays["out"]


def _pieces(ptr: Int[Tensor, "S+1"], points: int) -> Iterator[tuple[int, int]]:
    """Windows `first` to `last` that together have about so many points, whose queries fit the cache."""
    sets, total = len(ptr) - 1, int(ptr[-1])
    ends = torch.searchsorted(ptr, torch.arange(points, total, points)).tolist() if total > points else []
    return ((first, last) for first, last in pairwise([0, *ends, sets]) if first < last)


@cache
def _compiled(dtype: torch.dtype) -> int:
    """The address of `windows.work_for`, kept on disk where there is a place for it."""
    work = windows.work_for(np.float64 if dtype == torch.float64 else np.float32)
    try:
        function = cfunc(windows.SIGNATURE, cache=True)(work)
    except RuntimeError:  # no folder to write to
        function = cfunc(windows.SIGNATURE)(work)
    except BROKEN as error:
        tell("windows", os.environ.get("NUMBA_CACHE_DIR") or str(Path(windows.__file__).parent / "__pycache__"), error)
        function = cfunc(windows.SIGNATURE)(work)
    _KEPT.append(function)  # or its code would go
    return function.address


_KEPT: list[object] = []
