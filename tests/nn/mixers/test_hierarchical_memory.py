from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.nn.mixers.hierarchical import ClusterMixer


@pytest.mark.parametrize("geometry", ["euclidean", "hyperbolic"])
@pytest.mark.parametrize("head_dim", [2, 8])  # worked out at the points, at the centers
@pytest.mark.parametrize("layout", ["grid", "reflected", "sparse"])
def test_memory_is_linear_in_the_number_of_windows(layout, head_dim, geometry, sizes):
    """Windows of 8x8 cells, 4, 16 and 64 of them, with the level above."""
    totals, largest = [], []
    for per_side in (2, 4, 8):
        tables = dict(table_size=7, upper_table_size=per_side)
        settings = dict(heads=2, head_dim=head_dim, centers=4, global_centers=4, geometry=geometry)
        mixer = ClusterMixer(6, **settings, **tables)
        side = 8 * per_side - (layout == "reflected")
        points = PointSet.from_images(torch.randn(1, 6, side, side))
        points = points.as_sparse() if layout == "sparse" else points
        options = dict(pad="needed", table_size=7, global_centers_per_side=2)
        plan = points.layout.plan(points.pos, points.ptr, per_side, 2, **options)
        x = plan.to_window_order(points.feat)
        with sizes() as seen:
            mixer(x, plan).sum().backward()
        totals.append(sum(seen.elements))
        largest.append(max(seen.elements))
        assert max(seen.elements) <= per_side**2 * 64 * 2 * 16  # a table's four neighbors of points x centers, or 2 D
    more = 1.11 if layout == "reflected" else 1  # the side that is cut off is a smaller share of more windows
    assert largest[1] <= 4 * more * largest[0] and largest[2] <= 16 * more * largest[0]
    assert totals[1] <= 4 * more * totals[0] and totals[2] <= 16 * more * totals[0]
