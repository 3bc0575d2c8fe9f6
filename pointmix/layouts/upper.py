"""The upper level of a plan, in which each window is one point of its set.

Every upper level offers the same to a mixer (S windows, R rows of L slots, B sets of up to K windows, G centers a set):

    mean                        rows (R, L, C) to the mean of each window, (S, C)
    pool_centers                rows (R, L, C) to the features of the centers of a whole set, (B, G, C)
    set_partition, set_reverse  windows (S, C) to sets (B, K, C) and back
    table_lookup                where a window reads a table of positions, None if the windows do not form a grid
    valid                       which slots of the sets hold a window (B, K), None if all
    center_valid                which centers exist (B, G), None if all
    centers                     G
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointmix.layouts.table_lookup import TableLookup
from pointmix.ops.precision import at_least_float32, in_float32
from pointmix.ops.segments import segment_count, segment_sum


@dataclass(frozen=True)
class UniformUpperLevel:
    """Sets with the same windows, all of one size.

    Args:
        batch: number of sets.
        pool_weight: (G, K L) weight of each point in the mean of a center.
    """

    batch: int
    pool_weight: Float[Tensor, "G KL"]
    table_lookup: TableLookup | None

    valid: None = None
    center_valid: None = None

    @property
    def centers(self) -> int:
        return self.pool_weight.shape[0]

    def mean(self, rows: Float[Tensor, "S L C"]) -> Float[Tensor, "S C"]:
        return rows.mean(1)

    def pool_centers(self, rows: Float[Tensor, "S L C"]) -> Float[Tensor, "B G C"]:
        return weighted_sum(rows.reshape(self.batch, -1, rows.shape[-1]), self.pool_weight)

    def set_partition(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "B K C"]:
        return x.view(self.batch, -1, x.shape[-1])

    def set_reverse(self, x: Float[Tensor, "B K C"]) -> Float[Tensor, "S C"]:
        return x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class IndexUpperLevel:
    """Sets with any number of windows, of any number of points.

    Args:
        mean_weight: (R, 1, L) weight of each slot in the mean of its window.
        pool_weight: (R, G, L) weight of each slot in the mean of a center of its set.
        row_window: (R,) the window of each row, None if row r is window r.
        row_set: (R,) the set of each row.
        partition_index: (B, K) the window in each slot of a set; slots that are not valid repeat the last one that is.
        reverse_index: (S,) the slot of each window.
    """

    mean_weight: Float[Tensor, "R 1 L"]
    pool_weight: Float[Tensor, "R G L"]
    row_window: Int[Tensor, "R"] | None
    row_set: Int[Tensor, "R"]
    partition_index: Int[Tensor, "B K"]
    reverse_index: Int[Tensor, "S"]
    valid: Bool[Tensor, "B K"]
    center_valid: Bool[Tensor, "B G"]
    table_lookup: TableLookup | None

    @classmethod
    def of(
        cls,
        members: Bool[Tensor, "R L G"],
        valid: Bool[Tensor, "R L"],
        row_window: Int[Tensor, "R"] | None,
        window_set: Int[Tensor, "S"],
        num_sets: int,
        dtype: torch.dtype,
    ) -> IndexUpperLevel:
        """From the centers of the whole set that each slot is pooled into. Windows are numbered set by set."""
        device, windows = members.device, window_set.shape[0]
        row_set = window_set if row_window is None else window_set[row_window]  # (R,)
        members = members & valid[..., None]
        per_center = segment_sum(members.sum(1), row_set, num_sets)  # (B, G)
        weight = reciprocal(per_center.clamp(min=1), dtype)[row_set, :, None]  # (R, G, 1)
        pool_weight = members.transpose(1, 2) * weight  # (R, G, L)
        count = valid.sum(1)
        count = count if row_window is None else segment_sum(count, row_window, windows)[row_window]
        mean_weight = (valid * reciprocal(count, dtype)[:, None])[:, None]  # (R, 1, L)
        counts = segment_count(window_set, num_sets)  # (B,)
        first = counts.cumsum(0) - counts
        nth = torch.arange(counts.max().item(), device=device)  # (K,)
        rank = torch.arange(windows, device=device) - first[window_set]  # (S,) of the window in its set
        return cls(
            mean_weight=mean_weight,
            pool_weight=pool_weight,
            row_window=row_window,
            row_set=row_set,
            partition_index=first[:, None] + torch.minimum(nth, counts[:, None] - 1),
            reverse_index=window_set * nth.shape[0] + rank,
            valid=nth < counts[:, None],
            center_valid=per_center > 0,
            table_lookup=None,
        )

    @property
    def centers(self) -> int:
        return self.pool_weight.shape[1]

    def mean(self, rows: Float[Tensor, "R L C"]) -> Float[Tensor, "S C"]:
        mean = weighted_sum(rows, self.mean_weight).squeeze(1)  # (R, C)
        return mean if self.row_window is None else segment_sum(mean, self.row_window, self.reverse_index.shape[0])

    def pool_centers(self, rows: Float[Tensor, "R L C"]) -> Float[Tensor, "B G C"]:
        return segment_sum(weighted_sum(rows, self.pool_weight), self.row_set, self.partition_index.shape[0])

    def set_partition(self, x: Float[Tensor, "S C"]) -> Float[Tensor, "B K C"]:
        return F.embedding(self.partition_index, x)

    def set_reverse(self, x: Float[Tensor, "B K C"]) -> Float[Tensor, "S C"]:
        return x.flatten(0, 1).index_select(0, self.reverse_index)


def reciprocal(count: Int[Tensor, "*N"], dtype: torch.dtype) -> Float[Tensor, "*N"]:
    """1 / count; in float32 for half precision, which cannot represent large counts."""
    return 1 / count.to(at_least_float32(dtype))


@in_float32
def weighted_sum(
    x: Float[Tensor, "R L C"], weight: Float[Tensor, "M L"] | Float[Tensor, "R M L"]
) -> Float[Tensor, "R M C"]:
    """Sums over the points of each row."""
    return torch.bmm(weight.to(x.dtype).expand(x.shape[0], -1, -1), x)


UpperLevel = UniformUpperLevel | IndexUpperLevel
