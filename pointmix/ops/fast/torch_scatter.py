"""torch-scatter: reductions over segments in C++ and CUDA."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch_scatter import scatter
from torch_scatter.composite import scatter_softmax


def segment_sum(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    return scatter(x, index, 0, dim_size=size, reduce="sum")


def segment_mean(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    return scatter(x, index, 0, dim_size=size, reduce="mean")


def segment_max(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    return scatter(x, index, 0, dim_size=size, reduce="max")


def segment_softmax(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "N *C"]:
    return scatter_softmax(x, index, 0, dim_size=size)
