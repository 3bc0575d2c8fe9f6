"""Windows over windows: what a plan knows of the level above, where each window is one point of its set.

Every top offers the same few things to a mixer:

    mean           rows (R, L, C) to the mean of each window, (S, C)
    pool           rows (R, L, C) to mean features around each center of a whole set, (B, G, C)
    split, merge   windows (S, C) to sets (B, K, C) and back
    taps           where a window reads a table of positions, None if it has no place on a lattice
    valid          which slots of the sets hold a window (B, K), None if all
    center_valid   which centers exist (B, G), None if all
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.layouts.windows import sides_of
from pointmix.ops.precision import at_least_float32, in_float32
from pointmix.ops.segments import segment_sum


@dataclass(frozen=True)
class Taps:
    """Where slots read a square table that covers a whole lattice: one cell, or four with bilinear weights.

    Args:
        index: (R, L, K) cells of the flat table; R may be the rows of one set where all sets are alike.
        weight: (R, L, K), None if K is one.
    """

    index: Int[Tensor, "R L K"]
    weight: Float[Tensor, "R L K"] | None

    @classmethod
    def of(cls, cell: Int[Tensor, "R L 2"], size: tuple[int, int] | Int[Tensor, "R 1 2"], table: int, dtype) -> Taps:
        """The cells of lattices of `size` on a table of side `table`, whose corners are theirs."""
        if isinstance(size, tuple):
            if size == (table, table):
                return cls((cell[..., :1] * table + cell[..., 1:]), None)
            size = sides_of(size, cell.device)
        elif (size == table).all():
            return cls((cell[..., :1] * table + cell[..., 1:]), None)
        where = cell * (table - 1) / (size - 1).clamp(min=1).double()  # (R, L, 2)
        low = where.long().clamp(max=max(table - 2, 0))
        part, step = where - low, min(table - 1, 1)
        (r, c), (pr, pc) = low.unbind(-1), part.unbind(-1)
        index = [(r + i * step) * table + c + j * step for i in (0, 1) for j in (0, 1)]
        weight = [(pr if i else 1 - pr) * (pc if j else 1 - pc) for i in (0, 1) for j in (0, 1)]
        return cls(torch.stack(index, -1), torch.stack(weight, -1).to(dtype))

    def read(self, table: Float[Tensor, "E M T T"]) -> Float[Tensor, "R M E L"]:
        """What the table says at each slot."""
        flat = table.flatten(2).transpose(0, 1)  # (M, E, T^2)
        found = 0
        for k, index in enumerate(self.index.unbind(-1)):  # tap by tap, as four at once would be most of the memory
            here = flat.index_select(2, index.flatten()).unflatten(2, index.shape)  # (M, E, R, L)
            found = here if self.weight is None else found + here * self.weight[..., k].to(here.dtype)
        return found.permute(2, 0, 1, 3).contiguous()  # which is added to every set


@dataclass(frozen=True)
class EvenTop:
    """Sets with the same windows, all of one size.

    Args:
        batch: number of sets.
        pooling: (G, K L) weight of each point in the mean of a center.
    """

    batch: int
    pooling: Float[Tensor, "G KL"]
    taps: Taps | None

    valid: None = None
    center_valid: None = None

    def mean(self, rows: Float[Tensor, "S L C"]) -> Float[Tensor, "S C"]:
        return rows.mean(1)

    def pool(self, rows: Float[Tensor, "S L C"]) -> Float[Tensor, "B G C"]:
        return shared_out(rows.reshape(self.batch, -1, rows.shape[-1]), self.pooling)

    def split(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "B K C"]:
        return x.view(self.batch, -1, x.shape[-1])

    def merge(self, x: Float[Tensor, "B K C"]) -> Float[Tensor, "S C"]:
        return x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class IndexTop:
    """Sets with any number of windows, of any number of points.

    Args:
        share: (R, 1, L) weight of each slot in the mean of its window.
        pooling: (R, G, L) weight of each slot in the mean of a center of its set.
        row_window: (R,) the window of each row, None if row r is window r.
        row_set: (R,) the set of each row.
        slot: (B, K) the window in each slot of a set; slots that are not valid repeat the last one that is.
        place: (S,) the slot of each window.
    """

    share: Float[Tensor, "R 1 L"]
    pooling: Float[Tensor, "R G L"]
    row_window: Int[Tensor, "R"] | None
    row_set: Int[Tensor, "R"]
    slot: Int[Tensor, "B K"]
    place: Int[Tensor, "S"]
    valid: Bool[Tensor, "B K"]
    center_valid: Bool[Tensor, "B G"]
    taps: Taps | None

    @classmethod
    def of(
        cls,
        members: Bool[Tensor, "R L G"],
        valid: Bool[Tensor, "R L"],
        row_window: Int[Tensor, "R"] | None,
        window_set: Int[Tensor, "S"],
        sets: int,
        dtype: torch.dtype,
    ) -> IndexTop:
        """From the slots around each center of the whole set; windows are numbered set by set."""
        device, windows = members.device, len(window_set)
        row_set = window_set if row_window is None else window_set[row_window]  # (R,)
        members = members & valid[..., None]
        around = segment_sum(members.sum(1), row_set, sets)  # (B, G)
        pooling = members.transpose(1, 2) * share_of(around.clamp(min=1), dtype)[row_set, :, None]  # (R, G, L)
        held = valid.sum(1)
        held = held if row_window is None else segment_sum(held, row_window, windows)[row_window]
        share = (valid * share_of(held, dtype)[:, None])[:, None]  # (R, 1, L)
        counts = torch.bincount(window_set, minlength=sets)  # (B,)
        first = counts.cumsum(0) - counts
        nth = torch.arange(int(counts.max()), device=device)  # (K,)
        rank = torch.arange(windows, device=device) - first[window_set]  # (S,) of the window in its set
        return cls(
            share=share,
            pooling=pooling,
            row_window=row_window,
            row_set=row_set,
            slot=first[:, None] + torch.minimum(nth, counts[:, None] - 1),
            place=window_set * len(nth) + rank,
            valid=nth < counts[:, None],
            center_valid=around > 0,
            taps=None,
        )

    def mean(self, rows: Float[Tensor, "R L C"]) -> Float[Tensor, "S C"]:
        mean = shared_out(rows, self.share).squeeze(1)  # (R, C)
        return mean if self.row_window is None else segment_sum(mean, self.row_window, len(self.place))

    def pool(self, rows: Float[Tensor, "R L C"]) -> Float[Tensor, "B G C"]:
        return segment_sum(shared_out(rows, self.pooling), self.row_set, len(self.slot))

    def split(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "B K C"]:
        return F.embedding(self.slot, x)

    def merge(self, x: Float[Tensor, "B K C"]) -> Float[Tensor, "S C"]:
        return x.flatten(0, 1).index_select(0, self.place)


def share_of(count: Int[Tensor, "*N"], dtype: torch.dtype) -> Float[Tensor, "*N"]:
    """One over a count; in float32 for half precision, in which large counts are infinite."""
    return 1 / count.to(at_least_float32(dtype))


@in_float32
def shared_out(x: Float[Tensor, "*R L C"], share: Float[Tensor, "*R M L"]) -> Float[Tensor, "*R M C"]:
    """Sums of points, each with its share."""
    return share.to(x.dtype) @ x


Top = EvenTop | IndexTop
