"""Some cells of a grid: masked and ragged images, scattered pixels. The cost is that of the points, not of the grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.base import Points, Slice
from pointmix.layouts.cells import (
    cells_of_points,
    coarse_cells,
    fill_with_nearest,
    kernel_cells,
    kernel_footprint,
    kernel_slots,
    reassign_dropped,
    unique,
    window_order,
)
from pointmix.layouts.lift import IndexLift, LiftMode, cell_lift
from pointmix.layouts.neighborhood import IndexNeighborhood
from pointmix.layouts.plan import IndexPlan, index_plan
from pointmix.layouts.table_lookup import TableLookup
from pointmix.layouts.upper import IndexUpperLevel
from pointmix.layouts.windows import center_members, check_options, reflect_cells, reflect_padding
from pointmix.ops.conv3x3 import takes_tiles
from pointmix.ops.precision import at_least_float32
from pointmix.ops.ragged import ptr_to_batch
from pointmix.ops.segments import segment_mean, segment_sum

MIN_TILE_POINTS = 1.5  # of a tile of 2x2 cells on average; with fewer, its 16 products take longer than 9 of each point


@dataclass(frozen=True, eq=False)
class SparseGrid:
    """Each point is on a cell of its set's own grid, at most one point a cell.

    Args:
        cell: (N, 2) int64, row and column.
        size: (B, 2) int64, (H, W) of each set's grid.
    """

    cell: Int[Tensor, "N 2"]
    size: Int[Tensor, "B 2"]

    def __repr__(self) -> str:
        sizes = sorted({tuple(s) for s in self.size.tolist()})
        sides = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} different sizes"
        return f"some cells of {sides}"

    def check(self, points: int, num_sets: int) -> None:
        """Raise ValueError unless there is a cell for each point and a size for each set."""
        if self.cell.shape != (points, 2) or self.size.shape != (num_sets, 2):
            raise ValueError(
                f"PointSet: layout must have cells ({points}, 2) and sizes ({num_sets}, 2), got "
                f"{tuple(self.cell.shape)} and {tuple(self.size.shape)}"
            )

    def points_per_set(self) -> None:
        """None: sets differ in their number of points."""

    def as_sparse(self, num_sets: int, device: torch.device) -> SparseGrid:
        return self

    def to_image(
        self, feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B1"], fill: float
    ) -> Float[Tensor, "B C H W"] | list[Float[Tensor, "C H W"]]:
        """(B, C, H, W) if all sizes are the same, else a list of (C, H, W); absent cells hold `fill`."""
        sizes, bounds, maps = self.size.tolist(), ptr.tolist(), []
        for size, lo, hi in zip(sizes, bounds[:-1], bounds[1:], strict=True):
            index = self.cell[lo:hi, 0] * size[1] + self.cell[lo:hi, 1]
            flat = feat.new_full((size[0] * size[1], feat.shape[-1]), fill).index_copy(0, index, feat[lo:hi])
            maps.append(flat.view(*size, -1).permute(2, 0, 1))
        return torch.stack(maps) if len(set(map(tuple, sizes))) == 1 else maps

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
    ) -> tuple[Float[Tensor, "Q 2"], Float[Tensor, "Q A"], Int[Tensor, "B1"], SparseGrid]:
        """The strided convolution of `Grid.reduce` at the coarse cells that are kept; absent cells count as zero.

        keep_cells="occupied" keeps every coarse cell that holds a point. keep_cells="area" keeps the fullest ones, as
        many as the points fill when counted in coarse cells, so that the number of points falls by stride^2 for any
        mask. Both keep all cells of a full grid. Without overlap between kernels, the points of a dropped cell are read
        by the nearest kept cell, see `_gather_once`. Overlapping kernels read the points that they cover: all of them
        where patches are masked, but only about half where a tenth of the pixels is scattered. absent="nearest" reads,
        in place of an absent cell of the grid, the nearest one under the same kernel, so that a network trained on
        whole images sees the values that it was trained on.
        """
        cell, new_ptr, count, parent = coarse_cells(self.cell, ptr, self.size, stride, keep_cells=keep_cells)
        kernel = weight.shape[-1]
        flat = weight.permute(0, 2, 3, 1).flatten(1)  # (Cout, K Cin), row-major
        if kernel == stride and padding == 0:
            own = parent
            count, parent = reassign_dropped(self.cell, ptr, self.size, stride, cell, new_ptr, count, parent)
            rows = self._gather_once(feat, parent, cell, new_ptr, kernel, absent, alone=parent is own)
        else:
            grids = self.cell, ptr, self.size, cell, new_ptr
            index = kernel_cells(*grids, stride=stride, kernel=kernel, padding=padding, absent=absent)
            rows = F.pad(feat, (0, 0, 0, 1)).index_select(0, index.flatten())
            if keep_cells == "area":  # points whose coarse cell is kept
                kept = (parent >= 0).nonzero().squeeze(1)
                pos, parent = pos[kept], parent[kept]
        feat = F.linear(rows.view(cell.shape[0], -1), flat, bias)  # (N', Cout)
        pos = segment_sum(pos, parent, cell.shape[0]) / count[:, None]
        return pos, feat, new_ptr, SparseGrid(cell, -(-self.size // stride))

    def _gather_once(
        self,
        feat: Float[Tensor, "N C"],
        parent: Int[Tensor, "N"],
        cell: Int[Tensor, "Q 2"],
        new_ptr: Int[Tensor, "B1"],
        kernel: int,
        absent: str,
        alone: bool,
    ) -> Float[Tensor, "K C"]:
        """The input of kernels without overlap, N' * kernel^2 rows: each point at its own position in the kernel or, if
        its cell was dropped, at the nearest position in the kernel of the cell it was reassigned to. Points at the same
        position are averaged; `alone` says that there are none."""
        slot = kernel_slots(self.cell, cell, parent, kernel)
        slots = cell.shape[0] * kernel**2
        if alone:
            rows = feat.new_zeros(slots, feat.shape[1]).index_copy_(0, slot, feat)
        else:
            rows = segment_mean(feat, slot, slots)
        if absent == "nearest":
            index = slot.new_full((slots,), slots).index_copy_(0, slot, slot).view(cell.shape[0], -1)
            _, outside = kernel_footprint(cell, self.size[ptr_to_batch(new_ptr, cell.shape[0])], kernel, kernel, 0)
            index = fill_with_nearest(index, outside, kernel, slots)
            rows = F.pad(rows, (0, 0, 0, 1)).index_select(0, index.flatten())
        return rows

    def pool(self, points: Points, coarse: Points, stride: int) -> tuple[Float[Tensor, "K C"], None]:
        """Mean features of the points in each coarse cell that `reduce` kept, see `Grid.pool`."""
        assert isinstance(coarse.layout, SparseGrid)
        kept, size = coarse.layout.cell, coarse.layout.size
        parent = cells_of_points(self.cell, points.ptr, stride, kept, coarse.ptr, size)
        means = segment_mean(points.feat, parent, kept.shape[0] + 1)
        return means[:-1], None  # without the last segment, the points of dropped cells

    def neighborhood(self, points: Points, kernel: int, *, absent: str = "zero") -> IndexNeighborhood:
        """The points under a kernel around each point, see `Grid.neighborhood`.

        Args:
            absent: what is read at an absent cell of the grid: "zero", or "nearest" for its nearest point under the
                same kernel.

        Raises:
            ValueError: if it finds two points on the same cell.
        """
        grid, tiles = (self.cell, points.ptr, self.size), None
        index = kernel_cells(*grid, *grid[:2], stride=1, kernel=kernel, padding=kernel // 2, absent=absent)
        if kernel == 3 and absent == "zero" and takes_tiles(points.feat):
            corner, ptr, _, _ = coarse_cells(*grid, 2, keep_cells="occupied")
            if len(self.cell) >= MIN_TILE_POINTS * len(corner):
                tiles = kernel_cells(*grid, corner, ptr, stride=2, kernel=4, padding=1, absent="zero")
                if (tiles[:, [5, 6, 9, 10]] < len(self.cell)).sum() < len(self.cell):  # some would have no result
                    raise ValueError("expected at most one point on each cell, got two on the same cell")
        return IndexNeighborhood(index, tiles)

    def lift(self, points: Points, coarse: Points, stride: int, *, mode: LiftMode = "bilinear") -> IndexLift:
        """The way back from `coarse` to `points`, see `Grid.lift` and `pointmix.layouts.lift.cell_lift`."""
        assert isinstance(coarse.layout, SparseGrid)
        own = self.cell, points.ptr, self.size
        return cell_lift(*own, coarse.layout.cell, coarse.ptr, stride, mode, at_least_float32(coarse.feat.dtype))

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
    ) -> IndexPlan:
        """The windows of `Grid.plan`, without the empty ones; centers without a point are not valid."""
        check_options(windows_per_side, centers_per_side, pad, shift, table_size, global_centers_per_side)
        if pad is None:
            windows = window_order(self.cell, ptr, self.size, windows_per_side, centers_per_side)
            return index_plan(*windows, pos.dtype)
        batch = ptr_to_batch(ptr, self.cell.shape[0])
        side, before, padded = reflect_padding(self.size, windows_per_side, pad)  # (B, 2) each
        length = padded // side
        source, cell, original = reflect_cells(self.cell, self.size[batch], before[batch], padded[batch])
        batch = batch[source]
        rolled = (cell - length[batch] // 2) % padded[batch] if shift else cell
        window = rolled // length[batch]
        key = (batch * windows_per_side + window[:, 0]) * windows_per_side + window[:, 1]
        found, window_index, counts = unique(key, self.size.shape[0] * windows_per_side**2)
        order = torch.argsort(window_index, stable=True)  # copies in window order
        cell, offset, batch = cell[order], (rolled - window * length[batch])[order], batch[order]
        members = center_members(offset, length[batch], centers_per_side)
        plan = index_plan(order, counts, members, pos.dtype, distinct=False)
        if table_size is not None:
            size = padded[batch[plan.partition_index[:, 0]], None]  # (R, 1, 2)
            table_lookup = TableLookup.of(cell[plan.partition_index], size, table_size, pos.dtype)
            plan = replace(plan, table_lookup=table_lookup)
        if global_centers_per_side is not None:
            members = center_members(cell, padded[batch], global_centers_per_side)[plan.partition_index]  # (R, L, G)
            window_set = found // windows_per_side**2
            num_sets = self.size.shape[0]
            assert plan.valid is not None
            upper = IndexUpperLevel.of(members, plan.valid, plan.row_window, window_set, num_sets, pos.dtype)
            window_cell = torch.stack([found // windows_per_side % windows_per_side, found % windows_per_side], 1)
            window_cell = window_cell[upper.partition_index]  # (B, K, 2)
            upper_lookup = TableLookup.of(window_cell, side[:, None], windows_per_side, pos.dtype)
            plan = replace(plan, upper=replace(upper, table_lookup=upper_lookup))
        return plan.merge_copies(source, original, self.cell.shape[0])

    def take(self, points: Slice | Int[Tensor, "K"], sets: Slice) -> SparseGrid:
        """The layout of some of the points, of some of the sets."""
        return SparseGrid(self.cell[points], self.size[sets])

    def cat(self, others: list[SparseGrid]) -> SparseGrid:
        """The layout of this batch followed by others."""
        every = [self, *others]
        return SparseGrid(torch.cat([s.cell for s in every]), torch.cat([s.size for s in every]))


pytree.register_pytree_node(
    SparseGrid,
    lambda s: ([s.cell, s.size], None),
    lambda children, _: SparseGrid(*children),
    serialized_type_name="pointmix.SparseGrid",
    flatten_with_keys_fn=lambda s: ([(pytree.GetAttrKey(k), getattr(s, k)) for k in ("cell", "size")], None),
)
