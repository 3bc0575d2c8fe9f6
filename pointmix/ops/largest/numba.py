"""`largest` on the CPU: products in pieces that fit the cache, searched by `numba_kernels`."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numba.core.ccallback import CFunc
from torch import Tensor

from pointmix.ops.kernels import threads
from pointmix.ops.kernels.jit import compiled_callback
from pointmix.ops.kernels.operators import operator
from pointmix.ops.largest import numba_kernels as kernels

PIECE = 2**18  # products at a time: 1 MiB in float32
MIN_PRODUCTS = 2**14  # with fewer, one thread searches faster


def _largest(
    x: Float[Tensor, "B N C"], key: Float[Tensor, "B K C"], offset: Float[Tensor, "B K"]
) -> Int[Tensor, "B N"]:
    (sets, points, _), centers = x.shape, key.shape[1]
    found, offset = x.new_empty(sets, points, dtype=torch.int64), offset.contiguous()
    step = max(PIECE // max(centers, 1), 16)
    room = x.new_empty(centers * min(step, points))
    num_threads = torch.get_num_threads()
    for s in range(sets):
        for first in range(0, points, step):
            piece, out = x[s, first : first + step], found[s, first : first + step]
            products = room[: centers * len(piece)].view(centers, len(piece))
            torch.mm(key[s], piece.t(), out=products)
            chunks = num_threads if products.numel() >= MIN_PRODUCTS else 1
            sizes = (ctypes.c_int64 * 4)(centers, len(piece), chunks, 0)
            addresses = ctypes.addressof(sizes), products.data_ptr(), offset[s].data_ptr(), out.data_ptr()
            arrays = (ctypes.c_void_p * 4)(*addresses)
            threads.run(cast(int, _compiled(x.dtype).address), ctypes.addressof(arrays), chunks)
    return found


largest = operator(
    "numba_largest(Tensor x, Tensor key, Tensor offset) -> Tensor",
    _largest,
    lambda x, key, offset: x.new_empty(x.shape[:2], dtype=torch.int64),
)


@cache
def _compiled(dtype: torch.dtype) -> CFunc:
    work = kernels.work_for(np.uint16 if dtype == torch.bfloat16 else np.float32)
    return compiled_callback(work, kernels.__file__)
