"""`largest` on the CPU, compiled: no product leaves the cache, see `numba_kernels`."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels.blas import sgemm_address
from pointmix.ops.kernels.operators import operator
from pointmix.ops.kernels.tiles import Kernel, run
from pointmix.ops.largest import numba_kernels as kernels

if not sgemm_address():
    raise ImportError("torch's library does not export sgemm of MKL")
MIN_MULTIPLICATIONS = 2**18  # with fewer, one thread is faster


def _largest(
    x: Float[Tensor, "B N C"], key: Float[Tensor, "B K C"], offset: Float[Tensor, "B K"]
) -> Int[Tensor, "B N"]:
    (sets, points, channels), centers = x.shape, key.shape[1]
    fits = key.shape == (sets, centers, channels) and offset.shape == (sets, centers) and channels > 0
    if not fits or x.dtype not in (torch.float32, torch.bfloat16) or key.dtype != x.dtype:
        given = f"{x.dtype} {tuple(x.shape)}, {key.dtype} {tuple(key.shape)} and {tuple(offset.shape)}"
        raise ValueError(
            "x, key and offset must be (B, N, C), (B, K, C) and (B, K) with C above 0, x and key both float32 or "
            f"both bfloat16, got {given}"
        )
    found = x.new_empty(sets, points, dtype=torch.int64)
    chunks = torch.get_num_threads() if x.numel() * centers >= MIN_MULTIPLICATIONS else 1
    sizes = kernels.Sizes(sets, points, centers, channels, sgemm_address(), chunks, 0)
    run(_kernel(x.dtype), sizes, x, key, offset.float(), found)
    return found


largest = operator(
    "numba_largest(Tensor x, Tensor key, Tensor offset) -> Tensor",
    _largest,
    lambda x, key, offset: x.new_empty(x.shape[:2], dtype=torch.int64),
)


@cache
def _kernel(dtype: torch.dtype) -> Kernel:
    return kernels.work_for(np.uint16 if dtype == torch.bfloat16 else np.float32)
