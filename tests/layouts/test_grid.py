from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.grid import Grid, grid_coordinates
from pointmix.layouts.plan import UniformPlan, with_relative_pos

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (8, 8), (13, 17), (16, 31), (50, 76)]
KERNELS = [(4, 4, 0), (3, 2, 1), (3, 1, 1), (2, 2, 0), (7, 4, 3), (3, 2, 0), (5, 3, 2), (1, 1, 0)]


def reduce(points: PointSet, weight, bias, stride, padding, keep_cells="area"):
    return PointSet(
        *points.layout.reduce(
            points.pos, points.feat, points.ptr, weight, bias, stride=stride, padding=padding, keep_cells=keep_cells
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


# ---- windows of a lattice that is continued by reflection -------------------------------------------------------


def continued(x: torch.Tensor, per_side: int, pad: str) -> torch.Tensor:
    """Maps (B, C, H, W) padded by reflection until the number of windows divides their sides."""
    extra = [-side % per_side if pad == "needed" else per_side - side % per_side for side in x.shape[2:]]
    (above, left), (below, right) = ([e // 2 for e in extra], [e - e // 2 for e in extra])
    return F.pad(x, (left, right, above, below), mode="reflect")


def windows(x: torch.Tensor, per_side: int) -> torch.Tensor:
    """(B, C, H, W) to (B S, L, C)."""
    x = x.unflatten(3, (per_side, -1)).unflatten(2, (per_side, -1))  # (B, C, F, h, F, w)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)


def plan_of(points: PointSet, per_side: int, centers: int = 1, pad: str | None = "needed", **kwargs):
    return points.layout.plan(points.pos.double(), points.ptr, per_side, centers, pad=pad, **kwargs)


REFLECTED = [((8, 12), 4, 2), ((9, 13), 4, 2), ((14, 14), 7, 2), ((4, 9), 7, 1), ((5, 6), 1, 4), ((5, 6), 1, 7)]


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize("size, per_side, centers", REFLECTED)
def test_windows_of_the_continued_lattice(size, per_side, centers, pad, shift):
    if pad == "always" and min(size) <= per_side // 2:
        pytest.skip("too short to be continued")
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    points = PointSet.from_images(x)
    plan = plan_of(points, per_side, centers, pad, shift=shift, table_size=7)
    wide = continued(x, per_side, pad)
    h, w = (side // per_side for side in wide.shape[2:])
    down, right = (h // 2, w // 2) if shift else (0, 0)

    def rolled(t: torch.Tensor) -> torch.Tensor:
        return windows(torch.roll(t, (-down, -right), (2, 3)), per_side)

    inside = plan.to_window_order(points.feat)
    assert torch.equal(plan.from_window_order(inside), points.feat)
    rows = plan.window_partition(inside)
    assert torch.equal(rows, rolled(wide))
    assert torch.equal(plan.window_reverse(rows), inside)  # each point takes what its own slot got, not a copy's
    pooled = F.adaptive_avg_pool2d(rows.view(-1, h, w, 3).movedim(-1, 1), centers)  # (B S, C, P, P)
    torch.testing.assert_close(plan.pool_centers(rows), pooled.flatten(2).transpose(1, 2))
    table = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    bias = F.interpolate(table.flatten(0, 1)[None], wide.shape[2:], mode="bilinear", align_corners=True)
    expected = rolled(bias).unflatten(2, (2, 3)).permute(0, 3, 2, 1)  # (S, M, E, L)
    torch.testing.assert_close(plan.table_lookup.read(table), expected)
    assert plan.valid is None and plan.center_valid is None and plan.row_window is None and plan.upper is None
    assert isinstance(plan, UniformPlan) == (wide.shape == x.shape and not shift)


def test_own_slots_and_not_copies_come_back():
    """Slots of copies may get something else than their points; it is not read."""
    points = PointSet.from_images(torch.zeros(2, 1, 9, 13))
    plan = plan_of(points, 4)
    slots = torch.zeros(*plan.window_partition(plan.to_window_order(points.feat)).shape[:2])
    slots.view(-1)[plan.reverse_index] = torch.arange(2 * 9 * 13).float()
    assert torch.equal(plan.window_reverse(slots[..., None])[:, 0], torch.arange(2 * 9 * 13).float())
    assert len(plan.reverse_index.unique()) == 2 * 9 * 13 < slots.numel()


@pytest.mark.parametrize("size", [(1, 1), (2, 30), (1, 9), (3, 3)], ids=str)
@pytest.mark.parametrize("pad", ["needed", "always"])
def test_sides_too_short_to_be_continued_are_their_own_windows(pad, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    plan = plan_of(points := PointSet.from_images(x), 7, 2, pad, table_size=7, global_centers_per_side=4)
    parts = [side if side <= 2 else 7 for side in size]
    rows = plan.window_partition(plan.to_window_order(points.feat))
    assert len(rows) == 2 * parts[0] * parts[1]
    assert torch.equal(plan.from_window_order(plan.window_reverse(rows)), points.feat)
    assert plan.pool_centers(rows).isfinite().all() and plan.upper.pool_centers(rows).isfinite().all()
    if size == (1, 1):
        assert torch.equal(plan.upper.pool_centers(rows), points.feat[:, None].expand(-1, 16, -1))


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_offsets_from_centers(size, shift):
    points = PointSet.from_images(torch.zeros(2, 1, *size, dtype=torch.float64))
    plan = with_relative_pos(plan_of(points, 2, 2, shift=shift), points.pos)
    rows = plan.window_partition(plan.to_window_order(points.pos))
    assert plan.relative_pos.shape == (len(rows), 4, rows.shape[1], 2)
    for r in (0, len(rows) - 1):
        for m, center in enumerate(plan.pool_centers(rows)[r]):
            torch.testing.assert_close(plan.relative_pos[r, m], rows[r] - center)
