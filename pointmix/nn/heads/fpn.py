"""Feature pyramid network: maps of all stages with the same channels, each with what the coarser stages have found.

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, figure 3; without norms, as mmdetection and
mmsegmentation configure it.

    stage i   x_i ── 1x1 ──(+)── 3x3 ── map i
                            │ nearest lift
    stage i+1 x_i+1 ─ 1x1 ──(+)── 3x3 ── map i+1

On full grids the 3x3 maps are convolutions; on sparse grids and clouds the same weights act on neighboring points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from pointmix.layouts.neighborhood import Neighborhood
from pointmix.nn.reducer import Reducer
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, add, linear_macs


class FPN(nn.Module):
    """FPN over stages, each of which is half as fine as the one before.

    Args:
        dims: channels of each stage.
        neck_dim: channels of the maps.
        absent: what the 3x3 maps read where a partial image has no point, see `Reducer`.
    """

    def __init__(self, dims: Sequence[int], neck_dim: int, *, absent: str = "zero") -> None:
        super().__init__()
        self.neck_dim = neck_dim
        self.lateral = nn.ModuleList(nn.Linear(dim, neck_dim) for dim in dims)
        self.smooth = nn.ModuleList(
            Reducer(neck_dim, neck_dim, kernel=3, stride=1, padding=1, absent=absent) for _ in dims
        )
        for layer in [*self.lateral, *self.smooth]:
            layer = cast("nn.Linear | Reducer", layer)
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def neighborhoods(self, stages: Sequence[PointSet]) -> list[Neighborhood]:
        """The neighbors that 3x3 maps read at each stage."""
        smooth = cast(Sequence[Reducer], self.smooth)
        return [layer.neighborhood(stage) for layer, stage in zip(smooth, stages, strict=True)]

    def forward(self, stages: Sequence[PointSet], near: Sequence[Neighborhood]) -> list[Float[Tensor, "_ C"]]:
        """Features at the points of each stage.

        Args:
            stages: outputs of the stages, the finest first.
            near: their `neighborhoods`.
        """
        maps = [layer(stage.feat) for layer, stage in zip(self.lateral, stages, strict=True)]
        for i, (fine, coarse) in reversed(list(enumerate(pairwise(stages)))):
            nearest = fine.layout.lift(fine, coarse, 2, mode="nearest")
            maps[i] = maps[i] + nearest(maps[i + 1])
        smooth = cast(Sequence[Reducer], self.smooth)
        return [layer.map_features(x, n) for layer, x, n in zip(smooth, maps, near, strict=True)]

    def macs(self, points: Sequence[int]) -> Macs:
        """Multiply-adds for one set with this many points at each stage."""
        lateral, smooth = cast(Iterable[nn.Linear], self.lateral), cast(Iterable[Reducer], self.smooth)
        macs = add(linear_macs(n, a, b) for n, a, b in zip(points, lateral, smooth, strict=True))
        return macs + Macs(other=sum(n * self.neck_dim for n in points[:-1]))  # nearest lifts
