"""Downsampling by clustering: each kept point aggregates the points most similar to its neighborhood."""

from __future__ import annotations

from torch import nn

from pointmix.nn.norm import PointNorm, SetIndex
from pointmix.nn.reducer import Reducer
from pointmix.ops.clustering.pool import cluster_pool, cluster_pool_reference
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs


class ClusterPool(nn.Module):
    """Reducer + norm(clusters of the whole set), one cluster for each kept point (FEC, clustering-based pooling).

    A cluster's center is the mean of the points that the kept point stands for: those in its stride^2 cells or, in a
    cloud, its stride^2 nearest. Points of dropped cells join the most similar center as well.

    The linear map to queries only decides which center a point joins, so it has no gradient. It keeps its random
    initialization, as in the released network, and can be loaded from the authors' checkpoints.

    Args:
        dim_in, dim_out, kernel, stride, padding, keep_cells, absent: of the `Reducer`.
        reference: run the reference form, with the similarity of all centers and points. For tests and benchmarks.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        kernel: int = 3,
        stride: int = 2,
        padding: int = 1,
        keep_cells: str = "area",
        absent: str = "zero",
        reference: bool = False,
    ) -> None:
        super().__init__()
        self.skip = Reducer(
            dim_in, dim_out, kernel=kernel, stride=stride, padding=padding, keep_cells=keep_cells, absent=absent
        )
        self.query = nn.Linear(dim_in, dim_out).requires_grad_(False)  # DDP waits for all gradients
        self.value = nn.Linear(dim_in, dim_out)
        self.norm = PointNorm(dim_out)
        self.reference = reference

    def forward(self, points: PointSet) -> PointSet:
        coarse = self.skip(points)
        pooled, valid = points.layout.pool(points, coarse, self.skip.stride[0])
        sets = SetIndex.of(coarse)
        even = sets.points_per_set is not None and SetIndex.of(points).points_per_set is not None
        pool = cluster_pool_reference if self.reference else cluster_pool
        weights = self.query.weight, self.query.bias, self.value.weight, self.value.bias
        out = pool(points.feat, pooled, *weights, points.ptr, coarse.ptr, even=even, center_valid=valid)
        return coarse.with_feat(coarse.feat + self.norm(out, sets))

    def macs(self, size: Size) -> Macs:
        """Multiply-adds: the similarities of all points to all centers as products, two average poolings, one norm."""
        width = self.skip.out_channels
        macs = linear_macs(size.points, self.skip) + linear_macs(size.before, self.query, self.value)
        similarity = Macs(products=size.before * size.points * width, other=2 * size.before * width)
        return macs + similarity + norm_macs(size.points, width)
