from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.grid import Grid
from pointmix.nn.reducer import Reducer


@pytest.mark.parametrize("kernel, stride, padding", [(4, 4, 0), (3, 2, 1), (3, 1, 1)])
@pytest.mark.parametrize("size", [(8, 12), (1, 7), (13, 11)])
def test_grid_and_sparse_grid_agree(size, kernel, stride, padding):
    reducer = Reducer(3, 5, kernel=kernel, stride=stride, padding=padding).double()
    points = PointSet.from_images(torch.randn(2, 3, *size, dtype=torch.float64))
    grid, sparse = reducer(points), reducer(points.as_sparse())
    assert isinstance(grid.layout, Grid)
    torch.testing.assert_close(sparse.feat, grid.feat)
    torch.testing.assert_close(sparse.pos, grid.pos)
    assert torch.equal(sparse.ptr, grid.ptr) and torch.equal(sparse.layout.cell, grid.as_sparse().layout.cell)


def test_is_a_convolution_with_its_weights_and_start():
    torch.manual_seed(3)
    reducer = Reducer(3, 5, kernel=4, stride=4, padding=0)
    torch.manual_seed(3)
    conv = torch.nn.Conv2d(3, 5, 4, 4)
    x = torch.randn(2, 3, 16, 8)
    torch.testing.assert_close(reducer(PointSet.from_images(x)).to_image(), conv(x))


@pytest.mark.parametrize("kernel", [4, 5])
def test_scattered_pixels_keep_the_cells_they_fill_or_every_occupied_one(kernel):
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[::4, ::4] = True  # one pixel in each of four patches
    points = PointSet.from_image(torch.randn(3, 8, 8), mask)
    for keep_cells, number in (("area", 1), ("occupied", 4)):
        assert len(Reducer(3, 5, kernel=kernel, stride=4, padding=0, keep_cells=keep_cells)(points).feat) == number


def test_a_masked_image_is_the_image_painted_with_zeros():
    x, mask = torch.randn(3, 12, 12, dtype=torch.float64), torch.rand(12, 12) < 0.5
    reducer = Reducer(3, 5, kernel=3, stride=2, padding=1, keep_cells="occupied").double()
    out = reducer(PointSet.from_image(x, mask))
    dense = F.conv2d((x * mask)[None], reducer.weight, reducer.bias, 2, 1)[0]
    torch.testing.assert_close(out.feat, dense[:, out.layout.cell[:, 0], out.layout.cell[:, 1]].T)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(kernel=2, stride=3, padding=0), "kernel 2, stride 3, padding 0"),
        (dict(kernel=3, stride=0, padding=0), "stride 0"),
        (dict(kernel=3, stride=2, padding=3), "padding 3"),
        (dict(kernel=3, stride=2, padding=-1), "padding must be at least 0, got -1"),
        (dict(kernel=3, stride=2, padding=1, keep_cells="some"), "keep_cells must be 'area' or 'occupied', got 'some'"),
        (dict(kernel=3, stride=2, padding=1, absent="no"), "absent must be 'zero' or 'nearest', got 'no'"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Reducer(3, 5, **kwargs)
