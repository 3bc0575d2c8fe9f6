"""Group normalization with one group: statistics over all points and channels of a set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.ops.scatter import segment_mean
from pointmix.pointset import PointSet


@dataclass(frozen=True)
class Sets:
    """How N packed points divide into sets; built once per stage.

    Args:
        number: B.
        even: the number of points of each set where all have as many, else None.
        batch: (N,) the set of each point, where sets differ.
    """

    number: int
    even: int | None
    batch: Int[Tensor, "N"] | None

    @classmethod
    def of(cls, points: PointSet) -> Sets:
        even = points.layout.points_per_set() if points.layout else None
        return cls(points.num_sets, even, None if even else points.batch)


class PointNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over the (points, channels) of each set."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "N C"], sets: Sets) -> Float[Tensor, "N C"]:
        if sets.even:
            y = x.view(sets.number, sets.even, 1, -1).permute(0, 3, 1, 2)  # (B, C, L, 1), channels last in memory
            y = F.group_norm(y, 1, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
            return y.permute(0, 2, 3, 1).reshape(x.shape)
        x32 = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        var, mean = torch.var_mean(x32, dim=1, correction=0)  # (N,) over the channels of a point
        center = segment_mean(mean, sets.batch, sets.number)[sets.batch]
        var = segment_mean(var + (mean - center).square(), sets.batch, sets.number)  # (B,) over points and channels
        scale = torch.rsqrt(var + self.eps)[sets.batch]
        y = torch.addcmul(self.bias.to(x32.dtype), (x32 - center[:, None]) * scale[:, None], self.weight.to(x32.dtype))
        return y.to(x.dtype)
