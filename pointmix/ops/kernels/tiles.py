"""Compiled functions that go through the points tile by tile, each thread through a chunk of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback

Kernel = Callable[..., None]
MIN_MULTIPLICATIONS = 2**18  # with fewer, one thread is faster


class Sizes(ctypes.Structure):
    """Points; channels in, hidden and out; points of a tile; chunks of the points and a counter of those taken; whether
    a residual is added; addresses of the matrix product and of another function: in float32 oneDNN's product, in
    bfloat16 what ends a thread's products."""

    _fields_ = [(name, ctypes.c_int64) for name in "N C H K tile chunks counter plus product other".split()]


def num_chunks(x: Float[Tensor, "N C"], w1: Float[Tensor, "H C"]) -> int:
    """The number of threads, each of which takes one chunk of the points."""
    return torch.get_num_threads() if len(x) * w1.numel() >= MIN_MULTIPLICATIONS else 1


def run(kernel: Kernel, sizes: ctypes.Structure, *arrays: Tensor) -> None:
    """Call a kernel in as many threads as there are chunks.

    Args:
        sizes: `Sizes`, or others with a field `chunks`.
    """
    kept = [t.contiguous() for t in arrays]
    addresses = (ctypes.c_void_p * (1 + len(kept)))(ctypes.addressof(sizes), *(t.data_ptr() for t in kept))
    threads.run(cast(int, _compiled(kernel).address), ctypes.addressof(addresses), sizes.chunks)


@cache
def _compiled(kernel: Kernel) -> CFunc:
    return compiled_callback(kernel, kernel.__code__.co_filename)
