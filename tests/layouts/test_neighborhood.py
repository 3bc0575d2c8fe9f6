"""Neighborhoods against the reducers of stride 1 and `torch.nn.functional.conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.nn.reducer import Reducer

F64 = dict(dtype=torch.float64)


def conv(kernel: int = 3, **kwargs) -> Reducer:
    return Reducer(3, 4, kernel=kernel, stride=1, padding=kernel // 2, **kwargs).double()


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_a_grid_is_convolved_in_both_layouts(kernel, bias):
    images, layer = torch.randn(2, 3, 7, 9, **F64), conv(kernel, bias=bias)
    grid = PointSet.from_images(images)
    expected = F.conv2d(images, layer.weight, layer.bias, padding=kernel // 2).permute(0, 2, 3, 1).flatten(0, 2)
    for points in (grid, grid.as_sparse()):
        torch.testing.assert_close(layer.map_features(points.feat, layer.neighborhood(points)), expected)


@pytest.mark.parametrize("absent", ["zero", "nearest"])
def test_a_partial_image_is_convolved_as_its_reducer_does(absent, shuffle):
    points = PointSet.from_image(torch.randn(3, 9, 8, **F64), torch.rand(9, 8) < 0.5)
    layer = conv(absent=absent)
    reduced = layer(points)  # in row-major order, as the points are
    torch.testing.assert_close(layer.map_features(points.feat, layer.neighborhood(points)), reduced.feat)
    moved, order = shuffle(points)
    found = layer.map_features(moved.feat, layer.neighborhood(moved))
    torch.testing.assert_close(found, reduced.feat[order])


def test_a_cloud_is_mapped_as_its_reducer_does():
    points = PointSet.cat([PointSet.from_points(torch.rand(n, 3, **F64), torch.rand(n, 3, **F64)) for n in (30, 4, 1)])
    layer = conv()
    torch.testing.assert_close(layer.map_features(points.feat, layer.neighborhood(points)), layer(points).feat)


@pytest.mark.parametrize("stride, padding", [(2, 1), (1, 0)])
def test_only_maps_that_keep_the_points_have_a_neighborhood(stride, padding):
    layer = Reducer(3, 4, kernel=3, stride=stride, padding=padding)
    with pytest.raises(ValueError, match="needs stride 1 and padding"):
        layer.neighborhood(PointSet.from_images(torch.rand(1, 3, 8, 8)))
