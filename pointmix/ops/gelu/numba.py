"""`gelu_backward_` on the CPU, see `numba_kernels`."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.gelu import numba_kernels as kernels
from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback

MIN_NUMBERS = 2**15  # with fewer numbers, one thread is faster


def gelu_backward_(
    x: Float[Tensor, "N H"], dy: Float[Tensor, "N H"], total: Float[Tensor, "H"]
) -> Float[Tensor, "N H"]:
    """`pointmix.ops.gelu.gelu_backward_`. The sums depend on the number of threads, not on their order."""
    if dy.dtype != x.dtype or dy.shape != x.shape or not (x.is_contiguous() and dy.is_contiguous()):
        given = " and ".join(f"{t.dtype} {tuple(t.shape)}" for t in (x, dy))
        raise ValueError(f"x and dy must be contiguous, of one dtype and shape, got {given}")
    num_threads = torch.get_num_threads() if x.numel() >= MIN_NUMBERS else 1
    y, totals = torch.empty_like(x), x.new_zeros(num_threads, x.shape[1], dtype=torch.float32)
    sizes = (ctypes.c_int64 * 4)(*x.shape, num_threads, 0)
    arrays = (ctypes.c_void_p * 5)(
        ctypes.addressof(sizes), x.data_ptr(), dy.data_ptr(), totals.data_ptr(), y.data_ptr()
    )
    threads.run(cast(int, _compiled(x.dtype).address), ctypes.addressof(arrays), num_threads)
    total += totals.sum(0)
    return y


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(np.uint16 if dtype == torch.bfloat16 else np.float32)
    return compiled_callback(work, kernels.__file__)
