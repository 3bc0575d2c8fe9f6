from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.grid import Grid, grid_coordinates

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (8, 8), (13, 17), (16, 31), (50, 76)]
KERNELS = [(4, 4, 0), (3, 2, 1), (3, 1, 1), (2, 2, 0), (7, 4, 3), (3, 2, 0), (5, 3, 2), (1, 1, 0)]


def reduce(points: PointSet, weight, bias, stride, padding, keep="area"):
    return PointSet(
        *points.layout.reduce(
            points.pos, points.feat, points.ptr, weight, bias, stride=stride, padding=padding, keep=keep
        )
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel, stride, padding", KERNELS)
def test_reduce_is_a_convolution_that_keeps_the_last_pixels(size, kernel, stride, padding):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weight, bias = torch.randn(5, 3, kernel, kernel, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    out = reduce(PointSet.from_images(x), weight, bias, stride, padding)
    height, width = (-(-side // stride) for side in size)
    assert out.layout == Grid((height, width)) and out.ptr.tolist() == [0, height * width, 2 * height * width]
    wide = F.pad(x, (padding, kernel + stride, padding, kernel + stride))  # more zeros than any kernel reaches
    expected = F.conv2d(wide, weight, bias, stride)[..., :height, :width]
    torch.testing.assert_close(out.to_image(), expected)


@pytest.mark.parametrize("kernel, stride, padding", [(4, 4, 0), (3, 2, 1)])
def test_reduce_is_the_plain_convolution_where_the_stride_divides(kernel, stride, padding):
    x, weight = torch.randn(2, 3, 16, 24, dtype=torch.float64), torch.randn(5, 3, kernel, kernel, dtype=torch.float64)
    out = reduce(PointSet.from_images(x), weight, None, stride, padding)
    torch.testing.assert_close(out.to_image(), F.conv2d(x, weight, None, stride, padding))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_reduced_positions_are_block_means(size, stride):
    points = PointSet.from_images(torch.randn(2, 1, *size, dtype=torch.float64))
    out = reduce(points, torch.ones(1, 1, stride, stride, dtype=torch.float64), None, stride, 0)
    pos = points.pos[: len(points.pos) // 2].view(*size, 2)
    expected = [
        pos[i : i + stride, j : j + stride].mean((0, 1))
        for i in range(0, size[0], stride)
        for j in range(0, size[1], stride)
    ]
    torch.testing.assert_close(out.pos, torch.stack(expected).repeat(2, 1))


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_pooled_features_are_block_means(size, stride):
    points = PointSet.from_images(torch.randn(2, 3, *size, dtype=torch.float64))
    coarse = reduce(points, torch.randn(5, 3, stride, stride, dtype=torch.float64), None, stride, 0)
    pooled, valid = points.layout.pool(points, coarse, stride)
    assert valid is None and len(pooled) == len(coarse.feat)
    for image, mean in zip(points.to_image(), coarse.with_feat(pooled).to_image(), strict=True):
        for i, line in enumerate(image.split(stride, 1)):
            for j, block in enumerate(line.split(stride, 2)):
                torch.testing.assert_close(mean[:, i, j], block.mean((1, 2)))


def test_no_copies_of_features():
    points = PointSet.from_images(torch.randn(2, 3, 8, 8))
    assert points.to_image().data_ptr() == points.feat.data_ptr()
    assert points.to_image().is_contiguous(memory_format=torch.channels_last)


def test_coordinates_are_computed_in_float32():
    """As in the released code, whatever the dtype: the same numbers reach a float64 and a float32 network."""
    for mode in ("inclusive", "exclusive"):
        low = grid_coordinates((13, 7), mode, torch.float32, torch.device("cpu"))
        assert torch.equal(grid_coordinates((13, 7), mode, torch.float64, torch.device("cpu")), low.double())


def test_as_a_value():
    assert Grid((3, 4)) == Grid((3, 4)) != Grid((4, 3)) and len({Grid((3, 4)), Grid((3, 4)), Grid((4, 3))}) == 2
    assert repr(Grid((3, 4))) == "grid 3x4" and Grid((3, 4)).points_per_set() == 12
    assert copy.deepcopy(Grid((3, 4))) == Grid((3, 4))


def test_check_counts_points():
    Grid((3, 4)).check(24, 2)
    with pytest.raises(ValueError, match="2 grids of 3x4 have 24 points, got 23"):
        Grid((3, 4)).check(23, 2)
