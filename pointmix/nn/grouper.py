"""Anchors and the groups of their nearest neighbors (PointMLP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.layouts.cloud import Cloud
from pointmix.ops.kernels.operators import dynamic_size, opaque
from pointmix.ops.neighbors import knn
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch
from pointmix.ops.sampling import farthest_point_sampling
from pointmix.pointset import PointSet


@dataclass(frozen=True)
class Groups:
    """Half of the points of each set, each with its neighbors.

    Args:
        anchor: (S,) the index of each anchor among the points.
        neighbors: (S, k) the points nearest to each anchor, itself first.
        batch: (S,) the set of each anchor.
        ptr: (B + 1,) of the anchors.
    """

    anchor: Int[Tensor, "S"]
    neighbors: Int[Tensor, "S k"]
    batch: Int[Tensor, "S"]
    ptr: Int[Tensor, "B1"]

    @classmethod
    def of(cls, points: PointSet, k: int) -> Groups:
        """The n // 2 farthest points of n, at least one. A set with fewer than k points repeats them (see `knn`)."""
        nested = isinstance(points.layout, Cloud) and points.layout.nested
        anchor, batch, ptr = _half(points.pos, points.ptr, nested)
        neighbors = knn(points.pos, points.ptr, points.pos[anchor], ptr, k)
        return cls(anchor, neighbors, batch, ptr)

    @property
    def num_sets(self) -> int:
        """B, the number of sets."""
        return self.ptr.numel() - 1

    def as_points(self, points: PointSet, feat: Float[Tensor, "S C"]) -> PointSet:
        """The anchors as points, in the order of sampling: sampling them again picks the first ones."""
        return PointSet(points.pos[self.anchor], feat, self.ptr, Cloud(nested=True))


def _fake_half(pos: Tensor, ptr: Tensor, nested: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The shapes of what `_half` returns."""
    anchors = dynamic_size()
    return ptr.new_empty(anchors), ptr.new_empty(anchors), torch.empty_like(ptr)


@opaque("half_of_points(Tensor pos, Tensor ptr, bool nested) -> (Tensor, Tensor, Tensor)", _fake_half)
def _half(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], nested: bool
) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"], Int[Tensor, "B1"]]:
    """The n // 2 farthest points of n, at least one: their indices, sets and ptr. `nested` as in `Cloud`."""
    new_ptr = counts_to_ptr((ptr.diff() // 2).clamp(min=1))
    batch = ptr_to_batch(new_ptr, int(new_ptr[-1]))
    nth = torch.arange(len(batch), device=batch.device) - new_ptr[batch]
    if nested:
        return nth + ptr[batch], batch, new_ptr
    picks, pick_ptr = farthest_point_sampling(pos, ptr, ratio=0.5)
    return picks[nth + pick_ptr[batch]], batch, new_ptr
