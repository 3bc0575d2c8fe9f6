"""Gradients of `residual_norm` on the CPU, see `numba_kernels`."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.ops.kernels.tiles import Kernel, run
from pointmix.ops.residual_norm import backward_reference
from pointmix.ops.residual_norm import numba_kernels as kernels


class Sizes(ctypes.Structure):
    """Points, channels and sets; chunks of the sets and a counter of those taken."""

    _fields_ = [(name, ctypes.c_int64) for name in "N C B chunks counter".split()]


def backward(
    x: Float[Tensor, "N C"],
    branch: Float[Tensor, "N C"],
    gamma: Float[Tensor, "C"],
    weight: Float[Tensor, "C"],
    mean: Float[Tensor, "B 1"],
    rstd: Float[Tensor, "B 1"],
    dh: Float[Tensor, "N C"],
    dy: Float[Tensor, "N C"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`backward_reference`. Sums over the sets depend on the number of threads, not on their order."""
    chunks, bits = torch.get_num_threads(), branch.dtype == torch.bfloat16
    if len(mean) < chunks or not (bits or branch.dtype == torch.float32):  # one thread computes a set
        return backward_reference(x, branch, gamma, weight, mean, rstd, dh, dy)
    dx, dbranch = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (dh, branch))
    sums, sizes = dh.new_zeros(chunks, 3, len(gamma)), Sizes(*x.shape, len(mean), chunks, 0)
    run(_kernel(bits), sizes, x.float(), branch, gamma, weight, mean, rstd, dh, dy, dx, dbranch, sums)
    dbias, dweight, dgamma = sums.sum(0)
    return dx.to(x.dtype), dbranch, dgamma, dweight, dbias


@cache
def _kernel(bits: bool) -> Kernel:
    return kernels.backward_for(np.uint16 if bits else np.float32)
