"""Compiled functions in several threads. They run without Python's global lock."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
ADDRESS = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
MIN_POINTS = 512  # with fewer points, one thread is faster


def run(function: int, data: int, threads: int) -> None:
    """Call the C function at an address with a pointer, in that many threads at once.

    torch's own OpenMP threads are used where possible: they spin for a while before they sleep and would compete with
    other threads for the processors.
    """
    if threads > 1 and (parallel := _openmp()):
        parallel(function, data, threads, 0)
    elif threads > 1:
        list(pool(threads, os.getpid()).map(ADDRESS(function), [data] * threads))
    else:
        ADDRESS(function)(data)


def share(work: Callable[[T], object], tasks: Sequence[T], points: int) -> None:
    """Call `work` for each task, in torch's number of threads if there are at least MIN_POINTS points in all."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads < 2 or points < MIN_POINTS:
        for task in tasks:
            work(task)
    else:
        list(pool(torch.get_num_threads(), os.getpid()).map(work, tasks))  # raises what a task raised


@cache
def _openmp() -> Callable[[int, int, int, int], None] | None:
    """The function of GNU OpenMP, or a compatible one, that enters a parallel region; None if torch loaded neither."""
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    if parallel is not None:
        parallel.argtypes, parallel.restype = [ctypes.c_void_p] * 2 + [ctypes.c_uint] * 2, None
    return parallel


@cache
def pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for the next call, because starting them takes as long as sampling a small set. Keyed by
    process, because a forked process has no threads."""
    return ThreadPoolExecutor(threads)
