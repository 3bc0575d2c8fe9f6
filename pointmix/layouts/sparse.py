"""Some cells of a lattice: masked and ragged images, scattered pixels. Work is per point; the lattice costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.cells import (
    adopted,
    coarse_cells,
    covered,
    divided,
    find,
    kernel_cells,
    key_of,
    nearest_slot,
    number_of,
    unique,
    window_order,
)
from pointmix.layouts.plan import IndexPlan, plan_windows
from pointmix.layouts.top import IndexTop, Taps
from pointmix.layouts.windows import around, check_options, reflected, reflection
from pointmix.ops.ragged import ptr_to_batch as set_of
from pointmix.ops.segments import segment_mean, segment_sum


@dataclass(frozen=True, eq=False)
class SparseGrid:
    """Each point sits on a cell of its set's own lattice, at most one point a cell.

    Args:
        cell: (N, 2) int64, row and column.
        size: (B, 2) int64, the sides of each set's lattice.
    """

    cell: Int[Tensor, "N 2"]
    size: Int[Tensor, "B 2"]

    def __repr__(self) -> str:
        sizes = sorted({tuple(s) for s in self.size.tolist()})
        sides = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} different sizes"
        return f"some cells of {sides}"

    def check(self, points: int, sets: int) -> None:
        """Raise ValueError unless there is a cell for each point and a size for each set."""
        if self.cell.shape != (points, 2) or self.size.shape != (sets, 2):
            raise ValueError(
                f"PointSet: layout must have cells ({points}, 2) and sizes ({sets}, 2), got "
                f"{tuple(self.cell.shape)} and {tuple(self.size.shape)}"
            )

    def points_per_set(self) -> None:
        """Sets differ in their number of points."""

    def as_sparse(self, sets: int, device: torch.device) -> SparseGrid:
        return self

    def to_image(self, feat, ptr, fill: float):
        """(B, C, H, W) if all sizes are one, else a list of (C, H, W); absent cells hold `fill`."""
        sizes, bounds, maps = self.size.tolist(), ptr.tolist(), []
        for size, lo, hi in zip(sizes, bounds[:-1], bounds[1:], strict=True):
            index = self.cell[lo:hi, 0] * size[1] + self.cell[lo:hi, 1]
            flat = feat.new_full((size[0] * size[1], feat.shape[-1]), fill).index_copy(0, index, feat[lo:hi])
            maps.append(flat.view(*size, -1).permute(2, 0, 1))
        return torch.stack(maps) if len(set(map(tuple, sizes))) == 1 else maps

    def reduce(self, pos, feat, ptr, weight, bias, *, stride: int, padding: int, keep: str, absent: str = "zero"):
        """The strided convolution of `Grid.reduce` at the coarse cells that are kept; absent cells count as zero.

        keep="occupied" keeps every coarse cell that holds a point. keep="area" keeps the fullest ones, as many as
        the points fill when counted in coarse cells, so that the number of points falls by stride^2 for any mask. Both
        keep all cells of a full lattice. Without overlap between kernels, the points of a dropped cell are read by the
        nearest kept cell, see `_read_once`. Kernels that overlap read the points that they cover: all of them in
        patches, but only about half where a tenth of the pixels is scattered. absent="nearest" reads, in place of an
        absent cell of the lattice, the nearest one that the same kernel has, so that a network trained on whole images
        meets what it knows.
        """
        cell, new_ptr, count, parent = coarse_cells(self.cell, ptr, self.size, stride, keep=keep)
        kernel, taps = weight.shape[-1], weight.permute(0, 2, 3, 1).flatten(1)  # (Cout, K Cin), row-major
        if kernel == stride and padding == 0:
            own = parent
            count, parent = adopted(self.cell, ptr, self.size, stride, cell, new_ptr, count, parent)
            rows = self._read_once(feat, parent, cell, new_ptr, kernel, absent, alone=parent is own)
        else:
            shape = {"stride": stride, "kernel": kernel, "padding": padding, "absent": absent}
            index = kernel_cells(self.cell, ptr, self.size, cell, new_ptr, **shape)
            rows = F.pad(feat, (0, 0, 0, 1)).index_select(0, index.flatten())
            if keep == "area":  # points whose coarse cell stays
                pos, parent = pos[parent >= 0], parent[parent >= 0]
        feat = F.linear(rows.view(len(cell), -1), taps, bias)  # (N', Cout)
        pos = segment_sum(pos, parent, len(cell)) / count[:, None]
        return pos, feat, new_ptr, SparseGrid(cell, -(-self.size // stride))

    def _read_once(self, feat, parent, cell, new_ptr, kernel: int, absent: str, alone: bool) -> Float[Tensor, "N'*K C"]:
        """What kernels without overlap read: each point at its own place in the kernel, or, if its cell was dropped, at
        the nearest place in the kernel of the cell that took it over. Points in the same place are averaged; `alone`
        says that there are none."""
        corner = cell.index_select(0, parent) * kernel
        row, col = (self.cell - corner).clamp_(0, kernel - 1).unbind(1)
        slot = torch.add(col, torch.add(row, parent, alpha=kernel), alpha=kernel)
        slots = len(cell) * kernel**2
        if alone:
            rows = feat.new_zeros(slots, feat.shape[1]).index_copy_(0, slot, feat)
        else:
            rows = segment_mean(feat, slot, slots)
        if absent == "nearest":
            index = slot.new_full((slots,), slots).index_copy_(0, slot, slot).view(len(cell), -1)
            _, outside = covered(cell, self.size[set_of(new_ptr, len(cell))], kernel, kernel, 0)
            index = nearest_slot(index, outside, kernel, slots)
            rows = F.pad(rows, (0, 0, 0, 1)).index_select(0, index.flatten())
        return rows

    def pool(self, points, coarse, stride: int) -> tuple[Float[Tensor, "K C"], None]:
        """Mean features of the points in each coarse cell that `reduce` kept, see `Grid.pool`."""
        kept, size = coarse.layout.cell, coarse.layout.size
        query = key_of(divided(self.cell, stride), set_of(points.ptr, len(self.cell)), size)[:, None]  # (N, 1)
        keys = key_of(kept, set_of(coarse.ptr, len(kept)), size)
        parent = find(query, torch.zeros_like(query, dtype=torch.bool), keys, number_of(size)).squeeze(1)
        return segment_mean(points.feat, parent, len(kept) + 1)[:-1], None  # the last is of cells that are gone

    def plan(
        self,
        pos: Float[Tensor, "N 2"],
        ptr: Int[Tensor, "B+1"],
        folds: int,
        centers: int,
        *,
        pad: str | None = None,
        shift: bool = False,
        table: int | None = None,
        top: int | None = None,
    ) -> IndexPlan:
        """The windows of `Grid.plan`; those without a point do not exist, centers without one are not valid."""
        check_options(folds, centers, pad, shift, table, top)
        if pad is not None:
            batch = set_of(ptr, len(self.cell))
            return self._plan_reflected(batch, pos.dtype, folds, centers, pad, shift, table, top)
        return plan_windows(*window_order(self.cell, ptr, self.size, folds, centers), pos.dtype)

    def _plan_reflected(self, batch, dtype, folds, centers, pad, shift, table, top) -> IndexPlan:
        side, before, padded = reflection(self.size, folds, pad)  # (B, 2) each
        length = padded // side
        source, cell, own = reflected(self.cell, self.size[batch], before[batch], padded[batch])
        batch = batch[source]
        rolled = (cell - length[batch] // 2) % padded[batch] if shift else cell
        window = rolled // length[batch]
        key = (batch * folds + window[:, 0]) * folds + window[:, 1]
        found, number, counts = unique(key, len(self.size) * folds**2)
        order = torch.argsort(number, stable=True)  # copies window by window
        cell, offset, batch = cell[order], (rolled - window * length[batch])[order], batch[order]
        plan = plan_windows(order, counts, around(offset, length[batch], centers), dtype, distinct=False)
        if table is not None:
            size = padded[batch[plan.slot[:, 0]], None]  # (R, 1, 2)
            plan = replace(plan, taps=Taps.of(cell[plan.slot], size, table, dtype))
        if top is not None:
            members = around(cell, padded[batch], top)[plan.slot]  # (R, L, G)
            window_set = found // folds**2
            over = IndexTop.of(members, plan.valid, plan.row_window, window_set, len(self.size), dtype)
            on = torch.stack([found // folds % folds, found % folds], 1)[over.slot]  # (B, K, 2)
            plan = replace(plan, top=replace(over, taps=Taps.of(on, side[:, None], folds, dtype)))
        return plan.of_copies(source, own)

    def take(self, points: slice | Int[Tensor, "K"], sets: slice) -> SparseGrid:
        """Some of the points, of some of the sets."""
        return SparseGrid(self.cell[points], self.size[sets])

    def cat(self, others: list[SparseGrid]) -> SparseGrid:
        """This batch of sets and others."""
        every = [self, *others]
        return SparseGrid(torch.cat([s.cell for s in every]), torch.cat([s.size for s in every]))


pytree.register_pytree_node(
    SparseGrid,
    lambda s: ([s.cell, s.size], None),
    lambda children, _: SparseGrid(*children),
    serialized_type_name="pointmix.SparseGrid",
    flatten_with_keys_fn=lambda s: ([(pytree.GetAttrKey(k), getattr(s, k)) for k in ("cell", "size")], None),
)
