"""Some cells of a lattice: masked and ragged images, scattered pixels. Work is per point; the lattice costs nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.plan import IndexPlan, plan_windows
from pointmix.layouts.top import IndexTop, Taps
from pointmix.layouts.windows import around, check_options, reflected, reflection, window_bounds
from pointmix.ops.ragged import set_of
from pointmix.ops.scatter import segment_mean, segment_sum


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
        the points fill when counted in coarse cells, so that the number of points falls by stride^2 for any mask;
        kernels that overlap still read most of the rest. Both keep all cells of a full lattice. absent="nearest" reads,
        in place of an absent cell of the lattice, the nearest one that the same kernel has, so that a network trained
        on whole images meets what it knows.
        """
        batch = set_of(ptr, len(feat))
        coarse = -(-self.size // stride)  # (B, 2)
        block = _divided(self.cell, stride)
        key, parent, count = _unique(_key(block, batch, coarse), int(coarse.prod(1).sum()))
        new_batch, cell = _from_key(key, coarse)
        if keep == "area":
            room = torch.minimum(self.size[new_batch] - cell * stride, torch.tensor(stride, device=cell.device))
            whole = math.lcm(*range(1, stride + 1)) ** 2  # integers, so that what fills a cell is exact
            kept = _fullest(count * (whole // room.prod(1)), whole, new_batch, key, len(coarse))
            number = kept.cumsum(0) - 1
            inside = kept[parent]  # points whose coarse cell stays
            own, parent = pos[inside], number[parent[inside]]
            cell, new_batch, count = cell[kept], new_batch[kept], count[kept]
        else:
            inside, own = slice(None), pos
        kernel, taps = weight.shape[-1], weight.permute(0, 2, 3, 1).flatten(1)  # (Cout, K Cin), row-major
        if kernel == stride and padding == 0 and absent == "zero":  # every point is read once
            row, col = torch.sub(self.cell, block, alpha=stride)[inside].unbind(1)
            slot = torch.add(col, torch.add(row, parent, alpha=kernel), alpha=kernel)
            rows = feat.new_zeros(len(cell) * kernel**2, feat.shape[1]).index_copy_(0, slot, feat[inside])
        else:
            source = torch.arange(kernel, device=cell.device) - padding
            source = (cell * stride)[:, None] + torch.cartesian_prod(source, source)  # (N', K, 2)
            size = self.size[new_batch][:, None]
            outside = ((source < 0) | (source >= size)).any(-1)
            query = _key(source, new_batch[:, None], self.size)
            index = _find(query, outside, _key(self.cell, batch, self.size), int(self.size.prod(1).sum()))
            if absent == "nearest":
                index = _nearest(index, outside, kernel, len(feat))
            rows = F.pad(feat, (0, 0, 0, 1)).index_select(0, index.flatten())
        feat = F.linear(rows.view(len(cell), -1), taps, bias)  # (N', Cout)
        pos = segment_sum(own, parent, len(cell)) / count[:, None]
        ptr = F.pad(torch.bincount(new_batch, minlength=len(coarse)).cumsum(0), (1, 0))
        return pos, feat, ptr, SparseGrid(cell, coarse)

    def pool(self, points, coarse, stride: int) -> tuple[Float[Tensor, "K C"], None]:
        """Mean features of the points in each coarse cell that `reduce` kept, see `Grid.pool`."""
        kept, size = coarse.layout.cell, coarse.layout.size
        query = _key(_divided(self.cell, stride), set_of(points.ptr, len(self.cell)), size)[:, None]  # (N, 1)
        keys = _key(kept, set_of(coarse.ptr, len(kept)), size)
        parent = _find(query, torch.zeros_like(query, dtype=torch.bool), keys, int(size.prod(1).sum())).squeeze(1)
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
        check_options(pad, shift, table, top)
        batch = set_of(ptr, len(self.cell))
        if pad is not None:
            return self._plan_reflected(batch, pos.dtype, folds, centers, pad, shift, table, top)
        size = self.size[batch]  # (N, 2)
        side = size.clamp(max=folds)  # windows a side
        window = self.cell * side // size  # (N, 2)
        start, length = window_bounds(window, size, side)
        key = (batch * folds + window[:, 0]) * folds + window[:, 1]
        _, number, counts = _unique(key, len(self.size) * folds**2)
        order = torch.argsort(number, stable=True)  # points window by window
        members = around((self.cell - start)[order], length[order], centers)  # (N, M)
        return plan_windows(order, counts, members, pos.dtype)

    def _plan_reflected(self, batch, dtype, folds, centers, pad, shift, table, top) -> IndexPlan:
        side, before, padded = reflection(self.size, folds, pad)  # (B, 2) each
        length = padded // side
        source, cell, own = reflected(self.cell, self.size[batch], before[batch], padded[batch])
        batch = batch[source]
        rolled = (cell - length[batch] // 2) % padded[batch] if shift else cell
        window = rolled // length[batch]
        key = (batch * folds + window[:, 0]) * folds + window[:, 1]
        found, number, counts = _unique(key, len(self.size) * folds**2)
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


def _same(size: Int[Tensor, "B 2"]) -> list[int] | None:
    """The sides of all lattices where they are the same, which spares a look at each point's own."""
    return size[0].tolist() if (size == size[0]).all() else None


def _key(cell: Int[Tensor, "*N 2"], batch: Int[Tensor, "*N"], size: Int[Tensor, "B 2"]) -> Int[Tensor, "*N"]:
    """A number for each cell of all lattices of the batch, laid end to end, row-major."""
    if (side := _same(size)) is not None:
        row = torch.add(cell[..., 0], batch, alpha=side[0])
        return torch.add(cell[..., 1], row, alpha=side[1])
    base = F.pad(size.prod(1).cumsum(0), (1, 0))
    return base[batch] + cell[..., 0] * size[batch, 1] + cell[..., 1]


def _from_key(key: Int[Tensor, "N"], size: Int[Tensor, "B 2"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N 2"]]:
    """Set and cell of a key."""
    if (side := _same(size)) is not None:
        row = key // side[1]
        batch = row // side[0]
        return batch, torch.stack([row - batch * side[0], key - row * side[1]], dim=1)
    end = size.prod(1).cumsum(0)
    batch = torch.searchsorted(end, key, right=True)
    local = key - (end - size.prod(1))[batch]
    width = size[batch, 1]
    return batch, torch.stack([local // width, local % width], dim=1)


def _divided(cell: Int[Tensor, "N 2"], by: int) -> Int[Tensor, "N 2"]:
    """cell // by; dividing by a power of two as a shift is nine times faster on a CPU."""
    return cell >> (by.bit_length() - 1) if by & (by - 1) == 0 else cell // by


# Where a lattice is not much larger than its points, a table of its cells is several times faster than sorting.
_TABLE = 16


def _unique(keys: Int[Tensor, "N"], cells: int) -> tuple[Int[Tensor, "K"], Int[Tensor, "N"], Int[Tensor, "K"]]:
    """The different keys in order, which of them each key is, and how often each occurs; keys lie below `cells`."""
    if cells > _TABLE * len(keys):
        return torch.unique(keys, return_inverse=True, return_counts=True)
    count = torch.bincount(keys, minlength=cells)
    found = count.nonzero().squeeze(1)
    rank = (count > 0).cumsum(0) - 1
    return found, rank.index_select(0, keys), count.index_select(0, found)


def _find(
    query: Int[Tensor, "N K"], absent: Bool[Tensor, "N K"], keys: Int[Tensor, "P"], cells: int
) -> Int[Tensor, "N K"]:
    """Index of each query among the keys, which lie below `cells`; len(keys) where it is absent."""
    if cells > _TABLE * len(keys):
        ordered, order = keys.sort()
        at = torch.searchsorted(ordered, query).clamp(max=len(keys) - 1)
        return torch.where((ordered[at] == query) & ~absent, order[at], len(keys))
    table = keys.new_full((cells + 1,), len(keys))  # the cell past the end is never taken
    table[keys] = torch.arange(len(keys), device=keys.device)
    return table.index_select(0, query.masked_fill(absent, cells).flatten()).view(query.shape)


def _nearest(
    index: Int[Tensor, "N K"], outside: Bool[Tensor, "N K"], kernel: int, none: int
) -> Int[Tensor, "N K"]:
    """Slots that are `none`, save those outside, as the nearest of their kernel that is not; the first of equals."""
    slots = torch.arange(kernel, device=index.device)
    slots = torch.cartesian_prod(slots, slots)  # (K, 2)
    order = (slots[:, None] - slots).square().sum(-1).argsort(dim=1, stable=True)  # (K, K)
    row, slot = ((index == none) & ~outside).nonzero(as_tuple=True)  # (M,)
    near = index[row[:, None], order[slot]]  # (M, K)
    first = (near != none).to(torch.uint8).argmax(1, keepdim=True)
    return index.index_put((row, slot), near.gather(1, first).squeeze(1))


def _fullest(
    filled: Int[Tensor, "N"], whole: int, batch: Int[Tensor, "N"], key: Int[Tensor, "N"], sets: int
) -> Bool[Tensor, "N"]:
    """The fullest cells of each set, as many as what is filled adds up to (rounded up); `whole` is a full cell."""
    quota = -(-segment_sum(filled, batch, sets) // whole)
    first = F.pad(torch.bincount(batch, minlength=sets).cumsum(0), (1, 0))
    local = key - key[first[batch]]  # equal shares are taken in an order that jumps about, to spread over the lattice
    spread = (local * 0x9E3779B1 % 2**32) >> 12
    order = torch.argsort((batch << 42) + (whole - filled) * 2**20 // whole * 2**20 + spread, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - first[batch] < quota[batch]


pytree.register_pytree_node(
    SparseGrid,
    lambda s: ([s.cell, s.size], None),
    lambda children, _: SparseGrid(*children),
    serialized_type_name="pointmix.SparseGrid",
    flatten_with_keys_fn=lambda s: ([(pytree.GetAttrKey(k), getattr(s, k)) for k in ("cell", "size")], None),
)
