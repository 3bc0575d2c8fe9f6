"""Lifting against `torch.nn.functional.interpolate`, and its meaning on sparse grids and clouds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.grid import Grid
from pointmix.nn.reducer import Reducer
from pointmix.ops.neighbors import interpolate
from pointmix.ops.ragged import counts_to_ptr

F64 = dict(dtype=torch.float64)
SIZES = [(8, 8), (7, 10), (1, 1), (1, 5), (13, 4)]


def coarser(points: PointSet, stride: int, dim: int = 3, **kwargs) -> PointSet:
    reduce = Reducer(points.feat.shape[1], dim, kernel=stride, stride=stride, padding=0, **kwargs)
    with torch.no_grad():
        return reduce.to(points.feat.dtype)(points)


def interpolated(points: PointSet, coarse: PointSet, stride: int, mode: str) -> torch.Tensor:
    options = dict(align_corners=False) if mode == "bilinear" else {}
    y = F.interpolate(coarse.to_image(), scale_factor=stride, mode=mode, **options)
    height, width = points.layout.size
    return y[..., :height, :width].permute(0, 2, 3, 1).reshape(-1, y.shape[1])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_full_grid_is_interpolated_in_both_layouts(size, stride, mode):
    grid = PointSet.from_images(torch.randn(2, 3, *size, **F64))
    coarse = coarser(grid, stride)
    expected = interpolated(grid, coarse, stride, mode)
    assert isinstance(coarse.layout, Grid)
    lift = grid.layout.lift(grid, coarse, stride, mode=mode)
    torch.testing.assert_close(lift(coarse.feat), expected, rtol=1e-12, atol=1e-12)
    one = lift.of_one_set(coarse.feat)
    each = torch.cat([one(feat) for feat in coarse.feat.chunk(2)])
    torch.testing.assert_close(each, expected, rtol=1e-12, atol=1e-12)
    sparse, few = grid.as_sparse(), coarse.as_sparse()
    lift = sparse.layout.lift(sparse, few, stride, mode=mode)
    torch.testing.assert_close(lift(few.feat), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("points", [0, 1, 7, 20, 117, 250, 1000])
def test_parts_are_the_whole(points, mode):
    grid = PointSet.from_images(torch.randn(3, 2, 13, 9, **F64))
    cloud = PointSet.from_points(torch.rand(50, 3, **F64), torch.rand(50, 2, **F64))
    for fine in (grid, grid.as_sparse(), cloud):
        coarse = coarser(fine, 2)
        lift = fine.layout.lift(fine, coarse, 2, mode=mode)
        whole, found = lift(coarse.feat), torch.full((len(fine.feat), 3), torch.nan, **F64)
        for place, part in lift.split(points):
            found[place] = part(coarse.feat)
            assert part.num_points == len(found[place])
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
        assert lift.num_points == len(fine.feat)


def test_weights_of_absent_cells_go_to_those_that_are_present():
    # 4x4 pixels, 2x2 coarse cells; the right coarse column is absent
    mask = torch.tensor([[1, 1, 0, 0]] * 4)
    points = PointSet.from_image(torch.randn(1, 4, 4, **F64), mask)
    coarse = coarser(points, 2, dim=1, keep_cells="occupied")
    assert coarse.layout.cell.tolist() == [[0, 0], [1, 0]]
    up = points.layout.lift(points, coarse, 2)(torch.tensor([[0.0], [1.0]], **F64)).view(4, 2)
    expected = torch.tensor([0, 0.25, 0.75, 1], **F64)[:, None].expand(4, 2)  # as if there were the left half only
    torch.testing.assert_close(up, expected)


def test_a_point_whose_coarse_cell_was_dropped_reads_the_nearest_one():
    rows, cols = [0, 0, 1, 1, 6], [0, 1, 0, 1, 6]  # a full coarse cell and a lonely pixel: area keeps two of 16 cells
    points = PointSet.from_pixels(torch.randn(5, 1, **F64), rows, cols, (8, 8))
    coarse = coarser(points, 2, dim=1, keep_cells="area")
    kept = coarse.layout.cell.tolist()
    assert kept[0] == [0, 0]
    only = PointSet(coarse.pos[:1], coarse.feat[:1], torch.tensor([0, 1]), type(coarse.layout)(
        coarse.layout.cell[:1], coarse.layout.size
    ))  # fmt: skip
    for mode in ("bilinear", "nearest"):
        lift = points.layout.lift(points, only, 2, mode=mode)
        torch.testing.assert_close(lift(only.feat), only.feat.expand(5, -1))


def test_a_lift_never_reads_another_set():
    images = [torch.randn(2, 9, 7, **F64), torch.randn(2, 4, 12, **F64)]
    masks = [torch.rand(9, 7) < 0.5, torch.rand(4, 12) < 0.5]
    masks[0][0, 0] = masks[1][0, 0] = True
    both = PointSet.from_images(images, masks)
    coarse = coarser(both, 2)
    lift = both.layout.lift(both, coarse, 2)
    feat = torch.where(coarse.batch[:, None] == 0, 1.0, torch.nan).double()
    up = lift(feat)
    assert (up[both.batch == 0] == 1).all() and up[both.batch == 1].isnan().all()


def test_a_cloud_is_interpolated_from_three_neighbors():
    fine, coarse = torch.rand(40, 3, **F64), torch.rand(11, 3, **F64)
    ptr, coarse_ptr = counts_to_ptr(torch.tensor([25, 15])), counts_to_ptr(torch.tensor([9, 2]))
    feat = torch.randn(11, 4, **F64)
    a, b = PointSet(fine, fine, ptr), PointSet(coarse, feat, coarse_ptr)
    expected = interpolate(feat, coarse, coarse_ptr, fine, ptr, 3)
    torch.testing.assert_close(a.layout.lift(a, b, 2)(feat), expected, rtol=1e-12, atol=1e-12)
    nearest = a.layout.lift(a, b, 2, mode="nearest")(feat)
    torch.testing.assert_close(nearest, interpolate(feat, coarse, coarse_ptr, fine, ptr, 1))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_lifts_are_linear_and_differentiable(mode):
    points = PointSet.from_image(torch.randn(2, 9, 8, **F64), torch.rand(9, 8) < 0.7)
    for fine in (PointSet.from_images(torch.randn(2, 2, 9, 8, **F64)), points, points.as_cloud()):
        coarse = coarser(fine, 2)
        lift = fine.layout.lift(fine, coarse, 2, mode=mode)
        assert torch.autograd.gradcheck(lift, coarse.feat.requires_grad_())
        ones = lift(torch.ones_like(coarse.feat))
        torch.testing.assert_close(ones, torch.ones_like(ones))  # weights add up to 1
