"""Downsampling: fewer points with wider features, by one linear map of the neighbors of each kept point."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pointmix.layouts.neighborhood import Neighborhood
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Size, linear_macs
from pointmix.utils.ranges import COUNT, NATURAL


class Reducer(nn.Conv2d):
    """A strided convolution whose weights also apply to sparse grids and clouds (see `reduce` of the layouts).

    Args:
        dim_in, dim_out: channels.
        kernel, stride, padding: of a square convolution.
        keep_cells: which coarse cells of a sparse grid are kept: "area" the fullest, as many as the points fill, so
            that the cost follows the number of points; "occupied" all with a point. The points of a dropped cell are
            read by the nearest kept cell if kernels do not overlap, else by the kernels that cover them, if any.
        absent: what a kernel reads at an absent cell of a grid: "zero", or "nearest" for its nearest point.
        bias: add a bias.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        kernel: int,
        stride: int,
        padding: int,
        keep_cells: str = "area",
        absent: str = "zero",
        bias: bool = True,
    ) -> None:
        COUNT.check("reducer: ", dim_in=dim_in, dim_out=dim_out, kernel=kernel)
        NATURAL.check("reducer: ", stride=stride, padding=padding)
        super().__init__(dim_in, dim_out, kernel, stride, padding, bias=bias)
        if keep_cells not in ("area", "occupied"):
            raise ValueError(f"keep_cells must be 'area' or 'occupied', got {keep_cells!r}")
        if absent not in ("zero", "nearest"):
            raise ValueError(f"absent must be 'zero' or 'nearest', got {absent!r}")
        if not 0 < stride <= kernel or not 0 <= padding < kernel:
            raise ValueError(
                f"reducer needs 0 < stride <= kernel and 0 <= padding < kernel, got kernel {kernel}, "
                f"stride {stride}, padding {padding}"
            )
        if stride > 16:
            raise ValueError(f"reducer needs a stride of at most 16, got {stride}")
        self.keep_cells, self.absent = keep_cells, absent

    def forward(self, points: PointSet) -> PointSet:  # type: ignore[override]  # a Conv2d for its parameters only
        pos, feat, ptr, layout = points.layout.reduce(
            points.pos,
            points.feat,
            points.ptr,
            self.weight,
            self.bias,
            stride=self.stride[0],
            padding=int(self.padding[0]),
            keep_cells=self.keep_cells,
            absent=self.absent,
        )
        return PointSet(pos, feat, ptr, layout)

    def neighborhood(self, points: PointSet) -> Neighborhood:
        """The neighbors of each point, for `map_features` of this and other reducers of the same kernel.

        Raises:
            ValueError: unless the stride is 1 and the padding keeps the size.
        """
        if self.stride[0] != 1 or self.kernel_size[0] != 2 * int(self.padding[0]) + 1:
            raise ValueError(f"a neighborhood needs stride 1 and padding (kernel - 1) / 2, got {self}")
        return points.layout.neighborhood(points, self.kernel_size[0], absent=self.absent)

    def map_features(self, feat: Float[Tensor, "N C"], near: Neighborhood) -> Float[Tensor, "N A"]:
        """What the reducer makes of features of the points that `near` was found for, in their order."""
        return near(feat, self.weight, self.bias)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of the convolution."""
        return linear_macs(size.points, self)
