"""Group normalization with one group: statistics over all points and channels of a set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.ops.precision import at_least_float32
from pointmix.ops.segments import segment_sum
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, POSITIVE


@dataclass(frozen=True)
class Sets:
    """How N packed points divide into sets; built once per stage.

    Args:
        number: B.
        even: the number of points of each set where all have as many, else None.
        batch: (N,) the set of each point, where sets differ.
        count: (B,) the number of points of each set, where sets differ.
    """

    number: int
    even: int | None
    batch: Int[Tensor, "N"] | None
    count: Int[Tensor, "B"] | None

    @classmethod
    def of(cls, points: PointSet) -> Sets:
        even = points.layout.points_per_set()
        if even is None:
            count = points.ptr.diff()
            if (count != count[0]).any():
                return cls(points.num_sets, None, points.batch, count)
            even = len(points.feat) // len(count)  # such as the same share of every image
        return cls(points.num_sets, even, None, None)

    def mean(self, x: Float[Tensor, "N *C"]) -> Float[Tensor, "B *C"]:
        """Mean over the points of each set, which half precision could not always sum up."""
        wide = at_least_float32(x.dtype)
        if self.even:
            return x.view(self.number, self.even, *x.shape[1:]).mean(1, dtype=wide).to(x.dtype)
        total = segment_sum(x.to(wide), self.batch, self.number)
        return (total / self.count.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)

    def spread(self, x: Float[Tensor, "B *C"]) -> Float[Tensor, "N *C"]:
        """What belongs to the set of each point."""
        return x.repeat_interleave(self.even, 0) if self.even else x.index_select(0, self.batch)


class PointNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over the (points, channels) of each set."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        COUNT.check(dim=dim)
        POSITIVE.check(eps=eps)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "N C"], sets: Sets) -> Float[Tensor, "N C"]:
        if sets.even:
            y = x.view(sets.number, sets.even, 1, -1).permute(0, 3, 1, 2)  # (B, C, L, 1), channels last in memory
            y = torch.group_norm(y, 1, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
            return y.permute(0, 2, 3, 1).reshape(x.shape)
        x32 = x.to(at_least_float32(x.dtype))
        x32 = x32 - sets.spread(sets.mean(x32.mean(1)))[:, None]
        var = sets.mean(torch.linalg.vector_norm(x32, dim=1).square()) / x.shape[1]  # (B,) over points and channels
        x32 = x32 * sets.spread(torch.rsqrt(var + self.eps))[:, None]
        y = torch.addcmul(self.bias.to(x32.dtype), x32, self.weight.to(x32.dtype))
        return y.to(x.dtype)
