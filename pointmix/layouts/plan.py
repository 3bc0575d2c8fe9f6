"""A plan: which points share a window and where its centers are. Computed once a stage, for all of its blocks.

Every plan offers the same to a mixer (N points, R rows of L slots, S windows of M centers):

    to_window_order, from_window_order  features (N, C) into and out of the order in which the stage's blocks keep them
    window_partition, window_reverse    points (N, C) to rows (R, L, C) and back; a row has points of one window only
    broadcast                           windows (S, C) to their rows (R, 1, C)
    pool_centers                        rows (R, L, C) to the features of the centers, means of their points, (S, M, C)
    row_window                          the window of each row (R,), None if row r is window r
    valid                               which slots of the rows hold a point (R, L), None if all
    center_valid                        which centers exist (S, M), None if all
    centers                             M
    table_lookup                        where a slot reads a table of positions, None if not asked for or not on a grid
    relative_pos                        position of a slot from each center of its window (R, M, L, D), None if not
                                        asked for
    upper                               the level above, in which each window is a point, None if not asked for
    packed                              the windows without rows, as fused kernels take them; None if points do not lie
                                        window by window, or rows are views
    as_packed                           the same, also if rows are views; None with the option `pad`, or in an export
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from pointmix.layouts.table_lookup import TableLookup
from pointmix.layouts.upper import UpperLevel, reciprocal, weighted_sum
from pointmix.layouts.windows import first_occurrence, member_signature
from pointmix.ops import ragged
from pointmix.ops.cells import fake_window_rows
from pointmix.ops.dispatch import choose
from pointmix.ops.kernels.operators import opaque
from pointmix.ops.precision import at_least_float32
from pointmix.ops.segments import segment_sum


@dataclass(frozen=True)
class UniformPlan:
    """Windows of one size on full grids. In window order the points of a window are contiguous, so rows are views.

    Args:
        batch: number of sets.
        size: (H, W) of the grid.
        windows_per_side: number of windows along each side.
        pool_weight: (M, L) weight of a window's points in the mean of a center; faster than average pooling.
        windows: the windows without rows, None where no mixer takes them and in exports.
    """

    batch: int
    size: tuple[int, int]
    windows_per_side: tuple[int, int]
    pool_weight: Float[Tensor, "M L"]
    table_lookup: TableLookup | None = None
    upper: UpperLevel | None = None
    windows: PackedPlan | None = None
    relative_pos: Float[Tensor, "R M L D"] | None = None

    row_window: None = None
    valid: None = None
    center_valid: None = None
    packed: None = None  # rows are views already

    @property
    def centers(self) -> int:
        """M, the number of centers of a window."""
        return self.pool_weight.shape[0]

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        return self.size[0] // self.windows_per_side[0], self.size[1] // self.windows_per_side[1]

    def to_window_order(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        if self.windows_per_side == (1, 1):
            return x
        (fh, fw), (h, w) = self.windows_per_side, self.window
        return x.view(self.batch, fh, h, fw, w, -1).transpose(2, 3).reshape(x.shape)  # (B, fh, fw, h, w, C)

    def from_window_order(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        if self.windows_per_side == (1, 1):
            return x
        (fh, fw), (h, w) = self.windows_per_side, self.window
        return x.view(self.batch, fh, fw, h, w, -1).transpose(2, 3).reshape(x.shape)  # (B, fh, h, fw, w, C)

    def window_partition(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "S L C"]:
        return x.view(-1, self.window[0] * self.window[1], x.shape[-1])

    def window_reverse(self, x: Shaped[Tensor, "S L C"]) -> Shaped[Tensor, "N C"]:
        return x.reshape(-1, x.shape[-1])

    def pool_centers(self, x: Float[Tensor, "R L C"]) -> Float[Tensor, "S M C"]:
        return weighted_sum(x, self.pool_weight)

    def broadcast(self, x: Shaped[Tensor, "S C"]) -> Shaped[Tensor, "S 1 C"]:
        return x.unsqueeze(1)

    def as_packed(self) -> PackedPlan | None:
        return self.windows


@dataclass(frozen=True)
class PackedPlan:
    """Windows of any number of points, packed one after the other, for kernels that need no rows: nothing is gathered.

    Args:
        ptr: (S + 1,) window s has the points ptr[s] to ptr[s + 1], in window order.
        window: (N,) the window of each point, in window order.
        members: (N, M) which centers of its window each point is pooled into, in window order.
        center_valid: (S, M) as in `IndexPlan`.
    """

    ptr: Int[Tensor, "S1"]
    window: Int[Tensor, "N"]
    members: Bool[Tensor, "N M"]
    center_valid: Bool[Tensor, "S M"]

    row_window: None = None
    valid: None = None

    def window_partition(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        return x

    def window_reverse(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        return x

    def broadcast(self, x: Shaped[Tensor, "S C"]) -> Shaped[Tensor, "N C"]:
        return x.index_select(0, self.window)


@dataclass(frozen=True)
class IndexPlan:
    """Windows with any number of points: rows of equal length are gathered by index.

    Args:
        order: (N,) the points in window order.
        partition_index: (R, L) the point in each slot, counted in window order; padding repeats the last point.
        valid: (R, L) false for padding; None if there is none.
        reverse_index: (N,) the slot (of R * L) of each point, in window order.
        pool_weight: (R, M, L) weight of a slot in the mean of a center; sums to one over the rows of a window.
        row_window: (R,) the window of each row, None if row r is window r.
        center_valid: (S, M) false for a center without points, or with the same points as an earlier one; None if all
            exist.
        num_windows: S.

    With reflection padding a point may have several slots; `reverse_index` names the one that is not a copy.
    """

    order: Int[Tensor, "N"]
    partition_index: Int[Tensor, "R L"]
    valid: Bool[Tensor, "R L"] | None
    reverse_index: Int[Tensor, "N"]
    pool_weight: Float[Tensor, "R M L"]
    row_window: Int[Tensor, "R"] | None
    center_valid: Bool[Tensor, "S M"] | None
    num_windows: int
    table_lookup: TableLookup | None = None
    upper: UpperLevel | None = None
    relative_pos: Float[Tensor, "R M L D"] | None = None
    packed: PackedPlan | None = None

    @property
    def centers(self) -> int:
        """M, the number of centers of a window."""
        return self.pool_weight.shape[1]

    def to_window_order(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        return x.index_select(0, self.order)

    def from_window_order(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "N C"]:
        return torch.empty_like(x).index_copy_(0, self.order, x)

    def window_partition(self, x: Shaped[Tensor, "N C"]) -> Shaped[Tensor, "R L C"]:
        return x.index_select(0, self.partition_index.flatten()).view(*self.partition_index.shape, x.shape[-1])

    def window_reverse(self, x: Shaped[Tensor, "R L C"]) -> Shaped[Tensor, "N C"]:
        return x.flatten(0, 1).index_select(0, self.reverse_index)

    def pool_centers(self, x: Float[Tensor, "R L C"]) -> Float[Tensor, "S M C"]:
        mean = weighted_sum(x, self.pool_weight)  # (R, M, C)
        return mean if self.row_window is None else segment_sum(mean, self.row_window, self.num_windows)

    def broadcast(self, x: Shaped[Tensor, "S C"]) -> Shaped[Tensor, "R 1 C"]:
        return (x if self.row_window is None else x.index_select(0, self.row_window)).unsqueeze(1)

    def as_packed(self) -> PackedPlan | None:
        return self.packed

    def merge_copies(self, source: Int[Tensor, "Q"], original: Bool[Tensor, "Q"], points: int) -> IndexPlan:
        """The plan of the points themselves, from this plan of N' copies of them.

        Args:
            source: the point of each copy.
            original: true for the copy of each point that is the point itself.
            points: N.
        """
        source, itself = source[self.order], _indices(original[self.order], points)
        order = source[itself]
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.shape[0], device=order.device)
        packed = self.packed  # None if there are copies: they are in several windows
        if packed is not None and order.shape != source.shape:
            packed = None
        return replace(
            self,
            order=order,
            partition_index=inverse[source][self.partition_index],
            reverse_index=self.reverse_index[itself],
            packed=packed,
        )


Plan = UniformPlan | IndexPlan


def with_relative_pos(plan: Plan, pos: Float[Tensor, "N D"]) -> Plan:
    """The plan with the position of each slot from each center of its window."""
    rows = plan.window_partition(plan.to_window_order(pos))  # (R, L, D)
    centers = plan.pool_centers(rows)  # (S, M, D)
    centers = centers if plan.row_window is None else centers[plan.row_window]
    return replace(plan, relative_pos=rows[:, None] - centers[:, :, None])


def index_plan(
    order: Int[Tensor, "N"],
    counts: Int[Tensor, "S"],
    members: Bool[Tensor, "N M"],
    dtype: torch.dtype,
    *,
    distinct: bool = True,
) -> IndexPlan:
    """The plan of windows with any number of points.

    Args:
        order: the points window by window.
        counts: the number of points of each window, at least one.
        members: which centers each point is pooled into, in that order.
        dtype: of the pooling weights, which are float32 for half precision.
        distinct: centers with the same points as an earlier one are not valid.
    """
    like = counts.new_empty(0, dtype=at_least_float32(dtype))
    exporting = torch.compiler.is_exporting()  # a graph takes windows of any size, and is not for one backend
    found = _rows(counts, members, distinct, like)
    partition_index, valid, reverse_index, pool_weight, row_window, window, center_valid = found
    return IndexPlan(
        order=order,
        partition_index=partition_index,
        valid=valid,
        reverse_index=reverse_index,
        pool_weight=pool_weight,
        row_window=None if not exporting and row_window.shape == counts.shape else row_window,
        center_valid=center_valid,
        num_windows=counts.shape[0],
        packed=None if exporting else PackedPlan(ragged.counts_to_ptr(counts), window, members, center_valid),
    )


@opaque(
    "indices_of_true(Tensor mask, SymInt number) -> Tensor",
    lambda mask, number: mask.new_empty(number, dtype=torch.int64),
)
def _indices(mask: Bool[Tensor, "Q"], number: int) -> Int[Tensor, "N"]:
    """Where the mask is true, which it is `number` times."""
    return mask.nonzero().squeeze(1)


@opaque(
    "window_rows(Tensor counts, Tensor members, bool distinct, Tensor like) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    fake_window_rows,
)
def _rows(
    counts: Int[Tensor, "S"], members: Bool[Tensor, "N M"], distinct: bool, like: Float[Tensor, "0"]
) -> tuple[Tensor, ...]:
    """`_window_rows` by the chosen backend."""
    rows: tuple[Tensor, ...] = (choose("window_rows", counts) or _window_rows)(counts, members, distinct, like)
    return rows


def _window_rows(
    counts: Int[Tensor, "S"], members: Bool[Tensor, "N M"], distinct: bool, like: Float[Tensor, "0"]
) -> tuple[Tensor, ...]:
    """partition_index, valid, reverse_index, pool_weight in the dtype of `like`, row_window, the window of each point
    and center_valid of `IndexPlan`.

    One row a window while that at most doubles the number of slots, else rows of the mean length, as many as a window
    needs. Either way there are fewer slots than twice the points plus one row a window.
    """
    points, windows, device = len(members), len(counts), members.device
    mean, longest = -(-points // windows), int(counts.max())
    longest = longest if longest <= 2 * mean else mean
    rows_of = -(-counts // longest)  # (S,)
    row_window = torch.repeat_interleave(torch.arange(windows, device=device), rows_of)  # (R,)
    first_row, first_point = rows_of.cumsum(0) - rows_of, counts.cumsum(0) - counts  # (S,)
    nth_row = torch.arange(len(row_window), device=device) - first_row[row_window]  # (R,) in its window
    nth = nth_row[:, None] * longest + torch.arange(longest, device=device)  # (R, L) in its window
    last = counts[row_window, None] - 1
    valid = nth <= last
    partition_index = first_point[row_window, None] + torch.minimum(nth, last)  # (R, L)
    window = torch.repeat_interleave(torch.arange(windows, device=device), counts, output_size=points)  # (N,)
    rank = torch.arange(points, device=device) - first_point[window]  # (N,) of the point in its window
    reverse_index = first_row[window] * longest + rank

    of_slots = members[partition_index] & valid[..., None]  # (R, L, M)
    per_center, signature = of_slots.sum(1), member_signature(of_slots, nth)  # (R, M) points of each center
    per_center, signature = (segment_sum(t, row_window, windows) for t in (per_center, signature))  # (S, M)
    weight = reciprocal(per_center[row_window].clamp(min=1), like.dtype)[..., None]
    pool_weight = of_slots.transpose(1, 2) * weight  # (R, M, L)
    center_valid = (per_center > 0) & first_occurrence(signature) if distinct else per_center > 0
    return partition_index, valid, reverse_index, pool_weight, row_window, window, center_valid
