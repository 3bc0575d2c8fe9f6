"""What numba compiles, on tensors on the CPU: farthest points and nearest neighbors by a k-d tree, integer work on
cells of lattices (as `pointmix.layouts` does it), clustering without gradients.

Sets, and the queries of a single set, are shared by as many threads as torch has. Processes may be forked, but not
while another thread is in the first call of all, which compiles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pointmix.ops.fast import cells, tree
from pointmix.ops.fast.compiled import call
from pointmix.ops.fast.numba_context import context_cluster
from pointmix.ops.fast.team import pool
from pointmix.ops.ragged import spans

__all__ = [
    "adopted", "coarse_cells", "context_cluster", "farthest_points", "kernel_cells", "knn", "window_order",
    "window_rows",
]  # fmt: skip
SHARED = 512  # points from which on threads are worth waking


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    x, index = _array(pos), np.empty(int(out_ptr[-1]), np.int64)

    def pick(task: tuple[tuple[int, ...], int]) -> None:
        (begin, end, first, last), start = task
        index[first:last] = call(tree, "farthest", x[begin:end], last - first, start) + begin

    _share(pick, list(zip(spans(ptr, out_ptr), start.tolist(), strict=True)), len(x))
    return torch.from_numpy(index)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    x, queries = _array(pos), _array(query_pos)
    index = np.zeros((len(queries), k), np.int64)
    parts = torch.get_num_threads() if len(ptr) == 2 else 1
    own = x.ctypes.data == queries.ctypes.data  # points that ask for their own neighbors are in order already

    def search(span: tuple[int, ...]) -> None:
        begin, end, first, last = span
        points, asked, found = x[begin:end], queries[first:last], index[first:last]
        built = call(tree, "build", points)
        order = (built if own and (begin, end) == (first, last) else call(tree, "build", asked))[1].ravel()
        order = np.array_split(order[order != tree.NONE], parts)
        _share(lambda part: call(tree, "nearest", points, built, asked, part, k, found), order, len(asked))
        found += begin

    _share(search, [span for span in spans(ptr, query_ptr) if span[2] < span[3]], len(queries))
    return torch.from_numpy(index)


def _on_cells(name: str, *arguments: Tensor | int) -> Tensor | tuple[Tensor, ...]:
    """What a function of `cells` makes of tensors."""
    found = call(cells, name, *(_array(a) if isinstance(a, Tensor) else a for a in arguments))
    return tuple(map(torch.from_numpy, found)) if isinstance(found, tuple) else torch.from_numpy(found)


adopted, coarse_cells, kernel_cells, window_order, window_rows = (
    partial(_on_cells, name) for name in ("adopted", "coarse_cells", "kernel_cells", "window_order", "window_rows")
)


def _array(x: Shaped[Tensor, "*N"]) -> Shaped[np.ndarray, "*N"]:
    return x.contiguous().resolve_neg().numpy()


def _share(work: Callable, tasks: Sequence, size: int) -> None:
    """Work on all tasks, in threads where there are many points; compiled code runs without the interpreter's lock."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads < 2 or size < SHARED:
        for task in tasks:
            work(task)
    else:
        list(pool(torch.get_num_threads(), os.getpid()).map(work, tasks))  # raises what a task raised
