"""Reductions over segments of a packed batch.

torch's own `index_add` and `scatter_reduce` are as fast as torch-scatter, and several times as fast for the maximum,
so they are what is used; within `use_backend("torch_scatter")` that library computes the same. Half precision is summed
and counted in float32 and comes back as it was: in float16 a sum ends at 65504, and so does a count.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.choice import forced
from pointmix.ops.precision import sums_in_float32


@sums_in_float32
def segment_sum(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    """out[s] = sum of x[n] over all n with index[n] == s; zero for an empty segment."""
    if not torch.compiler.is_compiling() and (other := forced("segment_sum", x)):
        return other(x, index, size)
    return x.new_zeros((size, *x.shape[1:])).index_add(0, index, x)


@sums_in_float32
def segment_mean(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    """out[s] = mean of x[n] over all n with index[n] == s; zero for an empty segment."""
    if not torch.compiler.is_compiling() and (other := forced("segment_mean", x)):
        return other(x, index, size)
    count = torch.bincount(index, minlength=size).clamp(min=1).to(x.dtype)
    return segment_sum(x, index, size) / count.view(-1, *[1] * (x.ndim - 1))


def segment_max(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "S *C"]:
    """out[s] = largest x[n] over all n with index[n] == s; zero for an empty segment.

    The gradient goes in equal parts to all that are largest (with torch-scatter to one of them).
    """
    if not torch.compiler.is_compiling() and (other := forced("segment_max", x)):
        return other(x, index, size)
    index = index.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    out = x.new_full((size, *x.shape[1:]), -torch.inf).scatter_reduce(0, index, x, "amax")
    return out.masked_fill(out == -torch.inf, 0)  # from zeros on, zeros would share their gradient with these


@sums_in_float32
def segment_softmax(x: Float[Tensor, "N *C"], index: Int[Tensor, "N"], size: int) -> Float[Tensor, "N *C"]:
    """out[n] = exp(x[n]) / sum of exp(x[m]) over all m of the same segment."""
    if not torch.compiler.is_compiling() and (other := forced("segment_softmax", x)):
        return other(x, index, size)
    weight = (x - segment_max(x.detach(), index, size)[index]).exp()  # at most 1
    return weight / segment_sum(weight, index, size)[index]
