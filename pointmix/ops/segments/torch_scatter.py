"""torch-scatter: reductions over segments in C++ and CUDA, with the arguments of `pointmix.ops.segments`."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch_scatter import scatter
from torch_scatter.composite import scatter_softmax


def _reduce(x: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    return scatter(x, index, 0, dim_size=size, reduce=reduce)


segment_sum, segment_mean, segment_max = (partial(_reduce, reduce=name) for name in ("sum", "mean", "max"))


def segment_softmax(x: Tensor, index: Tensor, size: int) -> Tensor:
    return scatter_softmax(x, index, 0, dim_size=size)
