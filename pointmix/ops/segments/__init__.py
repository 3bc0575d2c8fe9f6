"""Reductions over segments of a packed batch.

torch's `index_add` and `scatter_reduce` are as fast as torch-scatter, and several times faster for the maximum, so they
are the default; within `use_backend("torch_scatter")` that library computes the same. Half precision is summed and
counted in float32 and returned in its own dtype: float16 overflows at 65504, and so would a count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from pointmix.ops.dispatch import FLOATS, TORCH_SCATTER, Implementation, choose, register
from pointmix.ops.precision import sums_in_float32

__all__ = ["segment_max", "segment_mean", "segment_softmax", "segment_sum"]

for _op in __all__:
    register(
        _op,
        Implementation(TORCH_SCATTER, f"pointmix.ops.segments.torch_scatter:{_op}", dtypes=FLOATS, note="not faster"),
    )


def _other(op: str, x: Tensor) -> Callable[..., Tensor] | None:
    """A requested backend's function; None while compiling, and for integers, whose sums are exact in torch."""
    return choose(op, x) if x.is_floating_point() and not torch.compiler.is_compiling() else None


@sums_in_float32
def segment_sum(x: Shaped[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Shaped[Tensor, "S *C"]:
    """out[s] = sum of x[n] over all n with index[n] == s; zero for an empty segment."""
    if other := _other("segment_sum", x):
        return other(x, index, size)
    return x.new_zeros((size, *x.shape[1:])).index_add(0, index, x)


@sums_in_float32
def segment_mean(x: Shaped[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Shaped[Tensor, "S *C"]:
    """out[s] = mean of x[n] over all n with index[n] == s; zero for an empty segment."""
    if other := _other("segment_mean", x):
        return other(x, index, size)
    count = segment_count(index, size).clamp(min=1).to(x.dtype)
    return segment_sum(x, index, size) / count.view(-1, *[1] * (x.ndim - 1))


def segment_count(index: Int[Tensor, "N"], size: int) -> Int[Tensor, "S"]:
    """out[s] = how many n have index[n] == s."""
    if torch.compiler.is_exporting():  # to an exporter the length of a bincount depends on the values
        return index.new_zeros(size).index_add(0, index, torch.ones_like(index))
    return torch.bincount(index, minlength=size)


def segment_max(x: Shaped[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Shaped[Tensor, "S *C"]:
    """out[s] = largest x[n] over all n with index[n] == s; zero for an empty segment.

    The gradient is divided equally among all that are largest (torch-scatter gives it to one of them).
    """
    if other := _other("segment_max", x):
        return other(x, index, size)
    index = index.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    out = x.new_full((size, *x.shape[1:]), -torch.inf).scatter_reduce(0, index, x, "amax")
    return out.masked_fill(out == -torch.inf, 0)  # starting from zeros instead would send gradient to them


@sums_in_float32
def segment_softmax(x: Shaped[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Shaped[Tensor, "N *C"]:
    """out[n] = exp(x[n]) / sum of exp(x[m]) over all m of the same segment."""
    if other := _other("segment_softmax", x):
        return other(x, index, size)
    weight = (x - segment_max(x.detach(), index, size)[index]).exp()  # at most 1
    return weight / segment_sum(weight, index, size)[index]
