"""Neighborhoods: the points under a kernel around each point. Found once, for all maps on the same points.

A neighborhood is made by the `neighborhood` of a layout, and every one offers the same:

    __call__                    features (N, C), weight (A, C, K, K) and bias (A,) to (N, A): a convolution of stride 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.conv3x3 import conv3x3, conv3x3_of_points
from pointmix.ops.gather_linear import gather_linear


@runtime_checkable
class Neighborhood(Protocol):
    """See the module's docstring."""

    def __call__(
        self, feat: Float[Tensor, "N C"], weight: Float[Tensor, "A C K K"], bias: Float[Tensor, "A"] | None
    ) -> Float[Tensor, "N A"]: ...


@dataclass(frozen=True)
class GridNeighborhood:
    """Of every cell of full grids: a convolution with zero padding."""

    size: tuple[int, int]

    def __call__(
        self, feat: Float[Tensor, "N C"], weight: Float[Tensor, "A C K K"], bias: Float[Tensor, "A"] | None
    ) -> Float[Tensor, "N A"]:
        x = feat.view(-1, *self.size, feat.shape[1])  # (B, H, W, C)
        if weight.shape[-1] == 3:
            return conv3x3(x, weight, bias).reshape(-1, len(weight))
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2)
        return y.permute(0, 2, 3, 1).reshape(-1, len(weight))


@dataclass(frozen=True, eq=False)
class IndexNeighborhood:
    """Of any points.

    Args:
        index: (N, K * K) the point under each position of the kernel, row-major; N where there is none.
        tiles: (T, 16) for a 3x3 kernel on cells that are mostly adjacent, see `conv3x3_of_points`.
    """

    index: Int[Tensor, "N KK"]
    tiles: Int[Tensor, "T 16"] | None = None

    def __call__(
        self, feat: Float[Tensor, "N C"], weight: Float[Tensor, "A C K K"], bias: Float[Tensor, "A"] | None
    ) -> Float[Tensor, "N A"]:
        if self.tiles is not None:
            return conv3x3_of_points(feat, self.index, self.tiles, weight, bias)
        return gather_linear(feat, self.index, weight.permute(0, 2, 3, 1).flatten(1), bias)
