"""Anchors and the groups of their neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.layouts.cloud import Cloud
from pointmix.ops.neighbors import knn
from pointmix.ops.ragged import counts_to_ptr as offsets
from pointmix.ops.ragged import ptr_to_batch as set_of
from pointmix.ops.sampling import farthest_point_sampling
from pointmix.pointset import PointSet


@dataclass(frozen=True)
class Groups:
    """Half of the points of each set, each with its neighbors.

    Args:
        anchor: (S,) the point that is each anchor.
        near: (S, k) the nearest points to each anchor, itself first.
        batch: (S,) the set of each anchor.
        ptr: (B + 1,) of the anchors.
    """

    anchor: Int[Tensor, "S"]
    near: Int[Tensor, "S k"]
    batch: Int[Tensor, "S"]
    ptr: Int[Tensor, "B+1"]

    @classmethod
    def of(cls, points: PointSet, neighbors: int) -> Groups:
        """n // 2 farthest points of n, at least one; a set with fewer than k points repeats them (see `knn`)."""
        ptr = offsets((points.ptr.diff() // 2).clamp(min=1))
        batch = set_of(ptr, int(ptr[-1]))
        nth = torch.arange(len(batch), device=batch.device) - ptr[batch]
        if points.layout.nested:
            anchor = nth + points.ptr[batch]
        else:
            picks, pick_ptr = farthest_point_sampling(points.pos, points.ptr, ratio=0.5)
            anchor = picks[nth + pick_ptr[batch]]
        near = knn(points.pos, points.ptr, points.pos[anchor], ptr, neighbors)
        return cls(anchor, near, batch, ptr)

    @property
    def sets(self) -> int:
        """B, the number of sets."""
        return self.ptr.numel() - 1

    def points(self, of: PointSet, feat: Float[Tensor, "S C"]) -> PointSet:
        """The anchors as points. They lie in the order of sampling, so the first of them are the farthest again."""
        return PointSet(of.pos[self.anchor], feat, self.ptr, Cloud(nested=True))
