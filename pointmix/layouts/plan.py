"""A plan says, once per stage, which points share a window and where its centers are; blocks only do arithmetic.

Every plan offers the same few things to a mixer:

    enter, leave   features into and out of the order in which the stage's blocks keep them
    split, merge   points (N, C) to rows (R, L, C) and back; a row holds points of one window only
    spread         what belongs to windows (S, C) to their rows (R, 1, C)
    pool           rows (R, L, C) to mean features of the points around each center, (S, M, C)
    row_window     the window of each row (R,), None if rows are windows
    valid          which slots of the rows hold a point (R, L), None if all
    center_valid   which centers exist (S, M), None if all
    taps           where a slot reads a table of positions, None if none was asked for or there is no lattice
    offsets        position of a slot from each center of its window (R, M, L, D), None if not asked for
    top            the windows as points of one more level, None if not asked for
    packed         the windows without rows, as a kernel takes them, None if points do not lie window by window
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.layouts.top import Taps, Top, share_of, shared_out
from pointmix.layouts.windows import first_of_equals, member_signature
from pointmix.ops import ragged
from pointmix.ops.dispatch import choose
from pointmix.ops.precision import at_least_float32
from pointmix.ops.segments import segment_sum


@dataclass(frozen=True)
class EvenPlan:
    """Windows of one size on full grids: inside the stage points are kept window by window, so rows are views.

    Args:
        batch: number of sets.
        size: sides of the lattice.
        folds: windows a side.
        pooling: (M, L) weight of a window's points in the mean of a center; a product is faster than average pooling.
    """

    batch: int
    size: tuple[int, int]
    folds: tuple[int, int]
    pooling: Float[Tensor, "M L"]
    taps: Taps | None = None
    top: Top | None = None
    offsets: Float[Tensor, "R M L D"] | None = None

    row_window: None = None
    valid: None = None
    center_valid: None = None
    packed: None = None  # rows are views already

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        return self.size[0] // self.folds[0], self.size[1] // self.folds[1]

    def enter(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if self.folds == (1, 1):
            return x
        (fh, fw), (h, w) = self.folds, self.window
        return x.view(self.batch, fh, h, fw, w, -1).transpose(2, 3).reshape(x.shape)  # (B, fh, fw, h, w, C)

    def leave(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if self.folds == (1, 1):
            return x
        (fh, fw), (h, w) = self.folds, self.window
        return x.view(self.batch, fh, fw, h, w, -1).transpose(2, 3).reshape(x.shape)  # (B, fh, h, fw, w, C)

    def split(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "S L C"]:
        return x.view(-1, self.window[0] * self.window[1], x.shape[-1])

    def merge(self, x: Float[Tensor, "S L C"]) -> Float[Tensor, "N C"]:
        return x.reshape(-1, x.shape[-1])

    def pool(self, x: Float[Tensor, "R L C"]) -> Float[Tensor, "S M C"]:
        return shared_out(x, self.pooling)

    def spread(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "S 1 C"]:
        return x.unsqueeze(1)


@dataclass(frozen=True)
class PackedPlan:
    """Windows as stretches of the points, for kernels that take any number of points a window: nothing is gathered.

    Args:
        ptr: (S + 1,) window s has the places ptr[s] to ptr[s + 1] inside the stage.
        window: (N,) the window of each place.
        members: (N, M) which centers of its window the point of each place lies around.
        center_valid: as of the plan with rows.
    """

    ptr: Int[Tensor, "S+1"]
    window: Int[Tensor, "N"]
    members: Bool[Tensor, "N M"]
    center_valid: Bool[Tensor, "S M"]

    row_window: None = None
    valid: None = None

    def split(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return x

    def merge(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return x

    def spread(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "N C"]:
        return x.index_select(0, self.window)


@dataclass(frozen=True)
class IndexPlan:
    """Windows with any number of points: inside the stage these lie window by window, and rows of equal length are
    gathered by index.

    Args:
        order: (N,) the point at each place inside the stage.
        slot: (R, L) the place inside the stage whose point is in each slot; slots that are not valid repeat the last
            one that is.
        valid: (R, L) false where a slot is only padding; None if none is.
        place: (N,) the slot of each place inside the stage.
        pooling: (R, M, L) weight of a slot in the mean of a center; sums to one over the rows of a window.
        row_window: (R,) the window of each row, None if row r is window r.
        center_valid: (S, M) false where no point lies around a center, or the same points as around an earlier one;
            None if all exist.
        windows: S.

    A point may have several slots, as where a lattice is continued by reflection; its place says which is its own.
    """

    order: Int[Tensor, "N"]
    slot: Int[Tensor, "R L"]
    valid: Bool[Tensor, "R L"] | None
    place: Int[Tensor, "N"]
    pooling: Float[Tensor, "R M L"]
    row_window: Int[Tensor, "R"] | None
    center_valid: Bool[Tensor, "S M"] | None
    windows: int
    taps: Taps | None = None
    top: Top | None = None
    offsets: Float[Tensor, "R M L D"] | None = None
    packed: PackedPlan | None = None

    def enter(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return x.index_select(0, self.order)

    def leave(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return torch.empty_like(x).index_copy_(0, self.order, x)

    def split(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "R L C"]:
        return x.index_select(0, self.slot.flatten()).view(*self.slot.shape, x.shape[-1])

    def merge(self, x: Float[Tensor, "R L C"]) -> Float[Tensor, "N C"]:
        return x.flatten(0, 1).index_select(0, self.place)

    def pool(self, x: Float[Tensor, "R L C"]) -> Float[Tensor, "S M C"]:
        mean = shared_out(x, self.pooling)  # (R, M, C)
        return mean if self.row_window is None else segment_sum(mean, self.row_window, self.windows)

    def spread(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "R 1 C"]:
        return (x if self.row_window is None else x.index_select(0, self.row_window)).unsqueeze(1)

    def of_copies(self, source: Int[Tensor, "N'"], own: Bool[Tensor, "N'"]) -> IndexPlan:
        """This plan of copies as one of their points.

        Args:
            source: the point that each copy is of.
            own: true for the copy of each point that is the point itself.
        """
        source, own = source[self.order], own[self.order]
        order = source[own]
        inside = torch.empty_like(order)
        inside[order] = torch.arange(len(order), device=order.device)
        packed = self.packed if len(order) == len(source) else None  # a point in several windows is in no one stretch
        return replace(self, order=order, slot=inside[source][self.slot], place=self.place[own], packed=packed)


Plan = EvenPlan | IndexPlan


def with_offsets(plan: Plan, pos: Float[Tensor, "N D"]) -> Plan:
    """The plan with the position of each slot from each center of its window."""
    rows = plan.split(plan.enter(pos))  # (R, L, D)
    centers = plan.pool(rows)  # (S, M, D)
    centers = centers if plan.row_window is None else centers[plan.row_window]
    return replace(plan, offsets=rows[:, None] - centers[:, :, None])


def plan_windows(
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
        members: which centers each point lies around, in that order.
        dtype: of the pooling weights, which are float32 for half precision.
        distinct: a center around which lie the same points as around an earlier one does not exist.
    """
    like = counts.new_empty(0, dtype=at_least_float32(dtype))
    found = (choose("window_rows", counts) or _window_rows)(counts, members, distinct, like)
    slot, valid, place, pooling, row_window, window, center_valid = found
    row_window = None if len(row_window) == len(counts) else row_window
    packed = PackedPlan(ragged.counts_to_ptr(counts), window, members, center_valid)
    return IndexPlan(order, slot, valid, place, pooling, row_window, center_valid, len(counts), packed=packed)


def _window_rows(
    counts: Int[Tensor, "S"], members: Bool[Tensor, "N M"], distinct: bool, like: Float[Tensor, "0"]
) -> tuple[Tensor, ...]:
    """Slots, valid, place, pooling in the dtype of `like`, row_window, the window of each place, center_valid, see
    `IndexPlan`."""
    # one row a window while that at most doubles the slots, else rows of the mean length, as many as a window
    # needs: either way there are fewer slots than twice the points and one row a window
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
    slot = first_point[row_window, None] + torch.minimum(nth, last)  # (R, L)
    number = torch.repeat_interleave(torch.arange(windows, device=device), counts, output_size=points)  # (N,)
    rank = torch.arange(points, device=device) - first_point[number]  # (N,) of the point in its window
    place = first_row[number] * longest + rank

    of_slots = members[slot] & valid[..., None]  # (R, L, M)
    around, signature = of_slots.sum(1), member_signature(of_slots, nth)  # (R, M) points around each center
    around, signature = (segment_sum(t, row_window, windows) for t in (around, signature))  # (S, M)
    pooling = of_slots.transpose(1, 2) * share_of(around[row_window].clamp(min=1), like.dtype)[..., None]  # (R, M, L)
    center_valid = (around > 0) & first_of_equals(signature) if distinct else around > 0
    return slot, valid, place, pooling, row_window, number, center_valid
