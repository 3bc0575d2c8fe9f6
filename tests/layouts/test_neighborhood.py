"""Neighborhoods against the reducers of stride 1 and `torch.nn.functional.conv2d`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.neighborhood import IndexNeighborhood
from pointmix.layouts.sparse import SparseGrid
from pointmix.nn.reducer import Reducer
from pointmix.ops import conv3x3 as ops
from pointmix.ops import use_backend

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


@pytest.fixture
def compiled():
    pytest.importorskip("pointmix.ops.conv3x3.numba", reason="torch's library lacks MKL", exc_type=ImportError)


@pytest.fixture
def tiled(compiled, monkeypatch):
    """Any number of cells and channels is enough for the compiled convolution."""
    monkeypatch.setattr(ops, "MIN_CELLS", 0)
    monkeypatch.setattr(ops, "MIN_CHANNELS", 0)


def some_cells(*cells: tuple[int, int], **kwargs) -> PointSet:
    return PointSet.from_pixels(torch.randn(len(cells), 3, **kwargs), *zip(*cells, strict=True), (5, 5))


@pytest.mark.parametrize(
    "cells, tiles", [([(0, 0), (0, 1), (4, 4)], 2), ([(0, 0), (0, 1), (0, 2), (4, 4)], 3), ([(3, 1)], 1)]
)
def test_tiles_have_at_least_one_and_a_half_points(cells, tiles, tiled):
    points = some_cells(*cells)
    near = points.layout.neighborhood(points, 3)
    assert near.tiles.shape == (tiles, 16) if len(cells) >= 1.5 * tiles else near.tiles is None


def test_tiles_are_only_for_the_compiled_convolution(tiled, monkeypatch):
    cells = (2, 2), (2, 3), (3, 2)
    points, exact = some_cells(*cells), some_cells(*cells, **F64)
    assert points.layout.neighborhood(points, 3).tiles is not None
    for other, kwargs in ((points, {"absent": "nearest"}), (exact, {})):
        assert other.layout.neighborhood(other, 3, **kwargs).tiles is None
    assert points.layout.neighborhood(points, 5).tiles is None
    with use_backend("torch"):
        assert points.layout.neighborhood(points, 3).tiles is None
    with torch.autocast("cpu", torch.bfloat16):
        assert points.layout.neighborhood(points, 3).tiles is None
    monkeypatch.setattr(ops, "MIN_CELLS", 4)
    assert points.layout.neighborhood(points, 3).tiles is None


def test_two_points_on_the_same_cell(tiled):
    points = some_cells((2, 2), (2, 3), (3, 2))
    layout = SparseGrid(points.layout.cell[[0, 1, 1]], points.layout.size)
    points = PointSet(points.pos, points.feat, points.ptr, layout)
    with pytest.raises(ValueError, match="at most one point on each cell"):
        points.layout.neighborhood(points, 3)


def test_partial_images_of_several_sizes_in_tiles(tiled, shuffle):
    """Values, gradients, and independence of the order and of other images."""
    sizes = (5, 8), (1, 1), (9, 7), (2, 1), (6, 6)
    images = [PointSet.from_image(torch.randn(3, *size), torch.rand(size) < 0.9) for size in sizes[::2]]
    images[1:1] = [PointSet.from_image(torch.randn(3, *size)).as_sparse() for size in sizes[1::2]]
    points, layer = PointSet.cat(images), Reducer(3, 4, kernel=3, stride=1, padding=1)
    near = layer.neighborhood(points)
    args = [points.feat.requires_grad_(), layer.weight, layer.bias]
    exact = [t.detach().double().requires_grad_() for t in args]
    found, expected = near(*args), IndexNeighborhood(near.index)(*exact)
    assert "conv3x3" in found.grad_fn.name()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(found.shape)
    grads = torch.autograd.grad(found, args, weight), torch.autograd.grad(expected, exact, weight.double())
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)
    moved, order = shuffle(points)
    assert torch.equal(layer.neighborhood(moved)(moved.feat, *args[1:]), found[order])
    alone = torch.cat([layer.map_features(one.feat, layer.neighborhood(one)) for one in images])
    torch.testing.assert_close(alone, found, rtol=1e-5, atol=1e-5)  # small images gather their neighbors


def test_a_full_sparse_grid_is_a_grid_bit_for_bit(tiled):
    grid, layer = PointSet.from_images(torch.randn(2, 3, 7, 9)), Reducer(3, 4, kernel=3, stride=1, padding=1)
    found = [layer.map_features(points.feat, layer.neighborhood(points)) for points in (grid, grid.as_sparse())]
    assert torch.equal(*found)


def test_a_large_partial_image_takes_the_compiled_convolution(compiled):
    points = PointSet.from_image(torch.randn(128, 40, 40), torch.rand(40, 40) < 0.9)
    layer = Reducer(128, 128, kernel=3, stride=1, padding=1)
    assert "conv3x3" in layer.map_features(points.feat, layer.neighborhood(points)).grad_fn.name()
