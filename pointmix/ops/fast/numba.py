"""A k-d tree that numba compiles: farthest points and nearest neighbors on the CPU.

Sets, and the queries of a single set, are shared by as many threads as torch has. Processes may be forked, but not
while another thread is in the first call of all, which compiles.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.fast import tree
from pointmix.ops.ragged import spans

SHARED = 512  # points from which on threads are worth waking


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    x, index = _array(pos), np.empty(int(out_ptr[-1]), np.int64)

    def pick(task: tuple[tuple[int, ...], int]) -> None:
        (begin, end, first, last), start = task
        index[first:last] = _call("farthest", x[begin:end], last - first, start) + begin

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
        built = _call("build", points)
        order = (built if own and (begin, end) == (first, last) else _call("build", asked))[1].ravel()
        order = np.array_split(order[order != tree.NONE], parts)
        _share(lambda part: _call("nearest", points, built, asked, part, k, found), order, len(asked))
        found += begin

    _share(search, [span for span in spans(ptr, query_ptr) if span[2] < span[3]], len(queries))
    return torch.from_numpy(index)


def _array(x: Float[Tensor, "N D"]) -> Float[np.ndarray, "N D"]:
    return x.contiguous().resolve_neg().numpy()


def _call(name: str, *arguments: object) -> object:
    """A function of the tree. Where what numba compiled cannot be kept or read, it is compiled in memory."""
    try:
        return getattr(tree, name)(*arguments)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        warnings.warn(
            f"numba cannot use its files tree.*.nb* in {tree.build.stats.cache_path}, so each process compiles some "
            f"seconds: make room, delete them, or set NUMBA_CACHE_DIR ({type(error).__name__}: {error})",
            RuntimeWarning,
            stacklevel=2,
        )
        tree.in_memory()
        return getattr(tree, name)(*arguments)


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
