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
class SetIndex:
    """Which of N packed points belong to which of B sets; built once a stage.

    Args:
        num_sets: B.
        points_per_set: the number of points of each set if all have the same, else None.
        batch: (N,) the set of each point, if sets differ.
        count: (B,) the number of points of each set, if sets differ.
    """

    num_sets: int
    points_per_set: int | None
    batch: Int[Tensor, "N"] | None
    count: Int[Tensor, "B"] | None

    @classmethod
    def of(cls, points: PointSet) -> SetIndex:
        points_per_set = points.layout.points_per_set()
        if points_per_set is None:
            count = points.ptr.diff()
            if torch.compiler.is_exporting() or (count != count[0]).any():  # a graph takes any sets
                return cls(points.num_sets, None, points.batch, count)
            points_per_set = points.feat.shape[0] // count.shape[0]  # such as with the same fraction of every image
        return cls(points.num_sets, points_per_set, None, None)

    def mean(self, x: Float[Tensor, "N *C"]) -> Float[Tensor, "B *C"]:
        """Mean over the points of each set, summed in float32 if x has half precision."""
        wide = at_least_float32(x.dtype)
        if self.points_per_set:
            return x.view(self.num_sets, self.points_per_set, *x.shape[1:]).mean(1, dtype=wide).to(x.dtype)
        assert self.batch is not None and self.count is not None
        total = segment_sum(x.to(wide), self.batch, self.num_sets)
        return (total / self.count.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)

    def broadcast(self, x: Float[Tensor, "B *C"]) -> Float[Tensor, "N *C"]:
        """The value of its set for each point."""
        if self.points_per_set:
            return x.repeat_interleave(self.points_per_set, 0)
        assert self.batch is not None
        return x.index_select(0, self.batch)


class PointNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over the (points, channels) of each set."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        COUNT.check(dim=dim)
        POSITIVE.check(eps=eps)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "N C"], sets: SetIndex) -> Float[Tensor, "N C"]:
        if sets.points_per_set:
            y = x.view(sets.num_sets, sets.points_per_set, 1, -1).permute(0, 3, 1, 2)  # (B, C, L, 1), channels last
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            if weight.requires_grad and torch.is_grad_enabled() and not x.requires_grad:
                # behind frozen layers; torch's backward of channels-last inputs without gradients reads beyond memory
                y = torch.group_norm(y, 1, None, None, self.eps)
                y = torch.addcmul(bias[:, None, None], y, weight[:, None, None])
            else:
                y = torch.group_norm(y, 1, weight, bias, self.eps)
            return y.permute(0, 2, 3, 1).reshape(x.shape)
        x32 = x.to(at_least_float32(x.dtype))
        x32 = x32 - sets.broadcast(sets.mean(x32.mean(1)))[:, None]
        var = sets.mean(torch.linalg.vector_norm(x32, dim=1).square()) / x.shape[1]  # (B,) over points and channels
        x32 = x32 * sets.broadcast(torch.rsqrt(var + self.eps))[:, None]
        y = torch.addcmul(self.bias.to(x32.dtype), x32, self.weight.to(x32.dtype))
        return y.to(x.dtype)
