"""Downsampling by clustering: each kept point aggregates the points most similar to its neighborhood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid
from pointmix.nn.norm import PointNorm, SetIndex
from pointmix.nn.reducer import Reducer
from pointmix.ops.clustering.pool import cluster_pool, cluster_pool_reference
from pointmix.ops.ragged import ptr_to_batch
from pointmix.pointset import PointSet
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs
from pointmix.utils.ranges import COUNT


class ClusterPool(nn.Module):
    """Reducer + norm(clusters of a window), one cluster for each kept point (FEC, clustering-based pooling).

    A cluster's center is the mean of the points that the kept point stands for: those in its stride^2 cells or, in a
    cloud, its stride^2 nearest. Points of dropped cells join the most similar center as well.

    The linear map to queries only decides which center a point joins, so it has no gradient. It keeps its random
    initialization, as in the released network, and can be loaded from the authors' checkpoints.

    Args:
        dim_in, dim_out, kernel, stride, padding, keep_cells, absent: of the `Reducer`.
        windows_per_side: number of windows along each side of a lattice; points join a center of their own window. The
            points of a window in which the reducer keeps none join none.
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
        windows_per_side: int = 1,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(windows_per_side=windows_per_side)
        self.skip = Reducer(
            dim_in, dim_out, kernel=kernel, stride=stride, padding=padding, keep_cells=keep_cells, absent=absent
        )
        self.query = nn.Linear(dim_in, dim_out).requires_grad_(False)  # DDP waits for all gradients
        self.value = nn.Linear(dim_in, dim_out)
        self.norm = PointNorm(dim_out)
        self.windows_per_side, self.reference = windows_per_side, reference

    def forward(self, points: PointSet) -> PointSet:
        coarse = self.skip(points)
        pooled, valid = points.layout.pool(points, coarse, self.skip.stride[0])
        sets = SetIndex.of(coarse)
        even = sets.points_per_set is not None and SetIndex.of(points).points_per_set is not None
        pool = cluster_pool_reference if self.reference else cluster_pool
        weights = self.query.weight, self.query.bias, self.value.weight, self.value.bias
        if self.windows_per_side == 1:
            out = pool(points.feat, pooled, *weights, points.ptr, coarse.ptr, even=even, center_valid=valid)
        else:
            order, center_order, ptr, center_ptr, even = self._windows(points, coarse)
            out = pool(points.feat[order], pooled[center_order], *weights, ptr, center_ptr, even=even)
            out = torch.empty_like(out).index_copy(0, center_order, out)
        return coarse.with_feat(coarse.feat + self.norm(out, sets))

    def _windows(
        self, points: PointSet, coarse: PointSet
    ) -> tuple[Int[Tensor, "N"], Int[Tensor, "K"], Int[Tensor, "W1"], Int[Tensor, "W1"], bool]:
        """The points window by window, the centers window by window, where the windows start among both, and whether
        all have the same numbers. A point is in the window of its coarse cell.

        Raises:
            ValueError: for clouds, which have no lattice.
        """
        if isinstance(points.layout, Cloud) or isinstance(coarse.layout, Cloud):
            raise ValueError("pools of clouds have no windows; set pool_windows_per_side to 1")
        side, stride = self.windows_per_side, self.skip.stride[0]
        total, keys = points.num_sets * side**2, []
        size = coarse.layout.as_sparse(points.num_sets, points.feat.device).size
        for each, step in ((points, stride), (coarse, 1)):
            cell = each.layout.as_sparse(each.num_sets, each.feat.device).cell // step  # type: ignore[union-attr]
            batch = ptr_to_batch(each.ptr, len(cell))
            window = cell * side // size[batch]
            keys.append((batch * side + window[:, 0]) * side + window[:, 1])
        order, center_order = (key.argsort(stable=True) for key in keys)
        if self._divides(points.layout, coarse.layout):
            starts = torch.arange(total + 1, device=order.device)
            return order, center_order, starts * (len(order) // total), starts * (len(center_order) // total), True
        count, centers = (torch.bincount(key, minlength=total) for key in keys)
        order, kept = order[centers[keys[0][order]] > 0], centers > 0
        ptr, center_ptr = (F.pad(number[kept].cumsum(0), (1, 0)) for number in (count, centers))
        return order, center_order, ptr, center_ptr, False

    def _divides(self, fine: object, coarse: object) -> bool:
        """Whether all windows are equal, on full grids."""
        if not isinstance(fine, Grid) or not isinstance(coarse, Grid):
            return False
        sides, stride = zip(fine.size, coarse.size, strict=True), self.skip.stride[0]
        return all(n % self.windows_per_side == 0 and m == n * stride for m, n in sides)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds: the similarities of points to the centers of their window as products, two average poolings,
        one norm."""
        width = self.skip.out_channels
        macs = linear_macs(size.points, self.skip) + linear_macs(size.before, self.query, self.value)
        products = size.before * size.points * width // self.windows_per_side**2
        similarity = Macs(products=products, other=2 * size.before * width)
        return macs + similarity + norm_macs(size.points, width)
