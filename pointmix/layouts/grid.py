"""Every cell of a grid, row by row: whole images."""

from __future__ import annotations

from collections.abc import Hashable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.base import Points, Slice
from pointmix.layouts.cache import cached, get_tag, set_tag
from pointmix.layouts.grid_plan import plan_padded, plan_unpadded
from pointmix.layouts.lift import GridLift, LiftMode
from pointmix.layouts.neighborhood import GridNeighborhood
from pointmix.layouts.plan import IndexPlan, UniformPlan
from pointmix.layouts.sparse import SparseGrid
from pointmix.layouts.windows import check_options


def axis_coordinates(index: Int[Tensor, "*N"], side: int, mode: str) -> Float[Tensor, "*N"]:
    """Coordinates in [-0.5, 0.5] of the cells `index` along a side; modes are those of `grid_coordinates`."""
    if mode not in ("inclusive", "exclusive"):
        raise ValueError(f"coord_mode must be 'inclusive' or 'exclusive', got {mode!r}")
    return index / (max(side - 1, 1) if mode == "inclusive" else side) - 0.5


def grid_coordinates(
    size: tuple[int, int], mode: str, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "HW 2"]:
    """Row and column of every cell in [-0.5, 0.5], row-major.

    "inclusive": i / (H - 1) - 0.5 (Context Clusters, released code); "exclusive": i / H - 0.5 (its paper, section 3.1).
    The only cell of a side of one is at -0.5. Computed in float32 whatever the dtype, as in the released code.
    """
    axes = [axis_coordinates(torch.arange(side, device=device), side, mode) for side in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 2).to(dtype)


def positions(batch: int, *of: Hashable, like: Tensor) -> Float[Tensor, "N 2"]:
    """Positions of a batch of images.

    Args:
        of: size and mode as in `grid_coordinates`, then the strides of the reducers applied to them.
        like: a tensor of their dtype and device.
    """
    plane = cached(_plane, like.dtype, *of, like=like)  # (H * W, 2)
    if torch.compiler.is_compiling():
        return plane.repeat(batch, 1)
    with torch.inference_mode(False):  # inference tensors do not track in-place writes
        pos = plane.repeat(batch, 1)
    set_tag(pos, of)
    return pos


def _plane(dtype: torch.dtype, size: tuple[int, int], mode: str, *rest: int | torch.device) -> Float[Tensor, "HW 2"]:
    """Positions of one image; `rest` is the strides and the device."""
    pos = grid_coordinates(size, mode, dtype, cast("torch.device", rest[-1]))
    for stride in cast("tuple[int, ...]", rest[:-1]):
        pos = Grid(size)._block_means(pos, stride)
        size = (-(-size[0] // stride), -(-size[1] // stride))
    return pos


def starts(batch: int, layout: Grid, *, like: Tensor) -> Int[Tensor, "B1"]:
    """ptr of a batch of full grids, on the device of `like`."""
    return cached(_starts, batch, layout.points_per_set(), like=like).clone()  # each PointSet owns its ptr


def _starts(batch: int, points: int, device: torch.device) -> Int[Tensor, "B1"]:
    return torch.arange(batch + 1, device=device) * points


class Grid:
    """All H x W cells are present in every set, row-major."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = (len(range(size[0])), len(range(size[1])))  # plain ints: a compiled graph is for one size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.size == other.size

    def __hash__(self) -> int:
        return hash(self.size)

    def __repr__(self) -> str:
        return f"grid {self.size[0]}x{self.size[1]}"

    def check(self, points: int, num_sets: int) -> None:
        """Raise ValueError unless `num_sets` full grids have `points` points."""
        if points != num_sets * self.size[0] * self.size[1]:
            raise ValueError(
                f"PointSet: {num_sets} grids of {self.size[0]}x{self.size[1]} have "
                f"{num_sets * self.size[0] * self.size[1]} points, got {points}"
            )

    def points_per_set(self) -> int:
        """The number of points of each set."""
        return self.size[0] * self.size[1]

    def as_sparse(self, num_sets: int, device: torch.device) -> SparseGrid:
        """The same cells, listed one by one."""
        index = torch.arange(self.points_per_set(), device=device).repeat(num_sets)
        cell = torch.stack([index // self.size[1], index % self.size[1]], dim=1)
        return SparseGrid(cell, torch.tensor([self.size], device=device).repeat(num_sets, 1))

    def take(self, points: Slice, sets: Slice) -> Grid:
        """The layout of some of the sets, all points of each."""
        return self

    def cat(self, others: list[Grid]) -> Grid:
        """The layout of this batch followed by others of the same size."""
        return self

    def to_image(self, feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B1"], fill: float) -> Float[Tensor, "B C H W"]:
        return feat.view(-1, *self.size, feat.shape[-1]).permute(0, 3, 1, 2)

    def reduce(
        self,
        pos: Float[Tensor, "N 2"],
        feat: Float[Tensor, "N C"],
        ptr: Int[Tensor, "B1"],
        weight: Float[Tensor, "A C K K"],
        bias: Float[Tensor, "A"] | None,
        *,
        stride: int,
        padding: int,
        keep_cells: str,
        absent: str = "zero",
    ) -> tuple[Float[Tensor, "Q 2"], Float[Tensor, "Q A"], Int[Tensor, "B1"], Grid]:
        """Strided convolution of the features; positions are block means. The last block of a side may be smaller.

        Returns pos (N', 2), feat (N', Cout), ptr and layout of the ceil(H / stride) x ceil(W / stride) grid.
        """
        out = (-(-self.size[0] // stride), -(-self.size[1] // stride))
        kernel = weight.shape[-1]
        extra = [(o - 1) * stride + kernel - padding - side for o, side in zip(out, self.size, strict=True)]
        x = self.to_image(feat, ptr, 0.0)
        if max(extra) > padding:  # zeros below and to the right complete the last block
            x = F.pad(x, (padding, max(extra[1], 0), padding, max(extra[0], 0)))
            padding = 0
        y = F.conv2d(x, weight, bias, stride, padding)[..., : out[0], : out[1]]
        tag = cast(tuple[Hashable, ...] | None, get_tag(pos))
        pos = self._block_means(pos, stride) if tag is None else positions(y.shape[0], *tag, stride, like=pos)
        feat = y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])  # (N', Cout), a view where y is channels last
        return pos, feat, starts(y.shape[0], Grid(out), like=ptr), Grid(out)

    def pool(self, points: Points, coarse: Points, stride: int) -> tuple[Float[Tensor, "K C"], None]:
        """Mean features of the points that each point of `coarse` stands for, here a block of stride^2 cells.

        Args:
            points, coarse: point sets on this layout and on the one that `reduce` returned for it.

        Returns:
            The means, and which of them are over other points than all earlier ones, None if all are.
        """
        return self._block_means(points.feat, stride), None

    def neighborhood(self, points: Points, kernel: int, *, absent: str = "zero") -> GridNeighborhood:
        """The cells under a kernel around each cell; cells outside the grid count as zero.

        Args:
            kernel: odd number of cells a side.
            absent: as in `SparseGrid.neighborhood`; here nothing is absent.
        """
        return GridNeighborhood(self.size)

    def lift(self, points: Points, coarse: Points, stride: int, *, mode: LiftMode = "bilinear") -> GridLift:
        """The way back from `coarse` to `points`, see `pointmix.layouts.lift`.

        Args:
            points: point set on this layout.
            coarse: what reducers with a stride of `stride` in all made of it.
            mode: "bilinear" or "nearest".
        """
        return GridLift(points.ptr.numel() - 1, self.size, stride, mode)

    def _block_means(self, x: Float[Tensor, "N C"], stride: int) -> Float[Tensor, "K C"]:
        x = x.view(-1, *self.size, x.shape[1]).permute(0, 3, 1, 2)  # (B, C, H, W), channels last in memory
        x = F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)
        return x.permute(0, 2, 3, 1).flatten(0, 2)

    def plan(
        self,
        pos: Float[Tensor, "N 2"],
        ptr: Int[Tensor, "B1"],
        windows_per_side: int,
        centers_per_side: int,
        *,
        pad: str | None = None,
        shift: bool = False,
        table_size: int | None = None,
        global_centers_per_side: int | None = None,
    ) -> UniformPlan | IndexPlan:
        """`windows_per_side` windows along each side (fewer on a shorter side), with `centers_per_side`^2 centers each.

        Args:
            pad: None for windows that differ by a row or column at most, and centers that are merged where they
                coincide; "needed" and "always" for equal windows of a grid padded by reflection, see
                `reflect_padding`.
            shift: roll the windows by half of one, cyclically. Only with `pad`.
            table_size: side of the table of positions that slots will read.
            global_centers_per_side: centers along each side of the upper level, None for no upper level.
        """
        check_options(windows_per_side, centers_per_side, pad, shift, table_size, global_centers_per_side)
        key = ptr.numel() - 1, self.size, windows_per_side, centers_per_side, pos.dtype
        if pad is None:
            return cached(plan_unpadded, *key, like=ptr)
        return cached(plan_padded, *key, pad, shift, table_size, global_centers_per_side, like=ptr)


pytree.register_pytree_node(
    Grid,
    lambda g: ([], g.size),
    lambda _, size: Grid(size),
    serialized_type_name="pointmix.Grid",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
    flatten_with_keys_fn=lambda g: ([], g.size),
)
