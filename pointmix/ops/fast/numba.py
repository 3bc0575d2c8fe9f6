"""A k-d tree that numba compiles: farthest points and nearest neighbors on the CPU.

Sets, and the queries of a single set, are shared by as many threads as torch has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.fast.tree import NONE, build, farthest, nearest
from pointmix.ops.ragged import spans

SHARED = 512  # points from which on threads are worth waking


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    x, index = pos.contiguous().numpy(), np.empty(int(out_ptr[-1]), np.int64)

    def pick(task: tuple[tuple[int, ...], int]) -> None:
        (begin, end, first, last), start = task
        index[first:last] = farthest(x[begin:end], last - first, start) + begin

    _share(pick, list(zip(spans(ptr, out_ptr), start.tolist(), strict=True)), len(x))
    return torch.from_numpy(index)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    x, queries = pos.contiguous().numpy(), query_pos.contiguous().numpy()
    index = np.zeros((len(queries), k), np.int64)
    parts = torch.get_num_threads() if len(ptr) == 2 else 1
    own = x.ctypes.data == queries.ctypes.data  # points that ask for their own neighbors are in order already

    def search(span: tuple[int, ...]) -> None:
        begin, end, first, last = span
        points, asked, found = x[begin:end], queries[first:last], index[first:last]
        tree = build(points)
        order = (tree if own and (begin, end) == (first, last) else build(asked))[1].ravel()
        order = order[order != NONE]
        _share(lambda part: nearest(points, tree, asked, part, k, found), np.array_split(order, parts), len(asked))
        found += begin

    _share(search, [span for span in spans(ptr, query_ptr) if span[2] < span[3]], len(queries))
    return torch.from_numpy(index)


def _share(work: Callable, tasks: Sequence, size: int) -> None:
    """Work on all tasks, in threads where there are many points; compiled code runs without the interpreter's lock."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads < 2 or size < SHARED:
        for task in tasks:
            work(task)
    else:
        list(_pool(torch.get_num_threads(), os.getpid()).map(work, tasks))  # raises what a task raised


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for the next call, as starting them takes as long as a small set; a forked process has none."""
    return ThreadPoolExecutor(threads)
