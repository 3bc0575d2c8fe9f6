"""Compiled functions with several phases, each a pass over some of the function's arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.kernels import threads


def run(
    work: CFunc, sizes: Sequence[int], names: Sequence[str], arrays: Mapping[str, Tensor], *, parallel: bool
) -> None:
    """Run a phase, in torch's number of threads or in one.

    Args:
        work: takes a pointer to the addresses of the sizes and of the arrays.
        sizes: int64, among them the phase and a counter.
        names: of all arrays of the function, in the order of their addresses.
        arrays: those of the phase; arrays that it writes must be contiguous.
    """
    kept = {name: t.contiguous() for name, t in arrays.items()}
    numbers = (ctypes.c_int64 * len(sizes))(*sizes)
    pointers = [kept[name].data_ptr() if name in kept else None for name in names]
    at = (ctypes.c_void_p * (1 + len(pointers)))(ctypes.addressof(numbers), *pointers)
    threads.run(cast(int, work.address), ctypes.addressof(at), torch.get_num_threads() if parallel else 1)
