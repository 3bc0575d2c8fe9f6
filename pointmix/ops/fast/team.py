"""Compiled functions run by the threads that torch computes with."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

ADDRESS = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(function: int, data: int, threads: int) -> None:
    """Call the C function at an address with a pointer, in so many threads at once.

    Threads of our own would wait for a processor while torch's, which look for more work for a while before they
    sleep, keep it busy.
    """
    if threads > 1 and (parallel := _openmp()):
        parallel(function, data, threads, 0)
    elif threads > 1:
        list(pool(threads, os.getpid()).map(ADDRESS(function), [data] * threads))
    else:
        ADDRESS(function)(data)


@cache
def _openmp() -> Callable[[int, int, int, int], None] | None:
    """Where GNU's OpenMP, or what stands in for it, enters a parallel region; None if torch has loaded neither."""
    parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if os.name == "posix" else None
    if parallel is not None:
        parallel.argtypes, parallel.restype = [ctypes.c_void_p] * 2 + [ctypes.c_uint] * 2, None
    return parallel


@cache
def pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for the next call, as starting them takes as long as a small set; a forked process has none."""
    return ThreadPoolExecutor(threads)
