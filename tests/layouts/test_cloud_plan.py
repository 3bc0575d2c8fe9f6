"""Windows and centers of free points, and one more level above them."""

from __future__ import annotations

import math

import pytest
import torch

from pointmix import PointSet
from pointmix.layouts.cloud import SAMPLING, Cloud
from pointmix.layouts.plan import with_relative_pos
from tests.layouts.test_cloud import cloud


def windows(plan) -> torch.Tensor:
    """The window of each point."""
    of_row = torch.arange(len(plan.partition_index)) if plan.row_window is None else plan.row_window
    of_slot = of_row[:, None, None].expand(*plan.partition_index.shape, 1)
    return plan.from_window_order(plan.window_reverse(of_slot.contiguous())).squeeze(-1)


def pooled(plan, x: torch.Tensor) -> torch.Tensor:
    """Mean of x around each center (S, M, C)."""
    return plan.pool_centers(plan.window_partition(plan.to_window_order(x)))


# ---- windows and centers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("dims, per_side", [(1, 7), (2, 4), (3, 2), (3, 3), (5, 2)])
def test_windows_are_equal_boxes_and_none_is_empty(dims, per_side, sampling):
    pos, ptr = cloud(200, 2, 30, dims=dims)
    window = windows(Cloud(sampling).plan(pos, ptr, per_side, 2))
    key = []
    for b in range(3):
        x = pos[ptr[b] : ptr[b + 1]]
        low, high = x.amin(0), x.amax(0)
        box = ((x - low) / (high - low) * per_side).floor().clamp(max=per_side - 1)
        key += [(b, *row) for row in box.long().tolist()]
    boxes = sorted(set(key))
    assert window.tolist() == [boxes.index(k) for k in key]


SHAPES = pytest.mark.parametrize("dims, per_side, centers", [(1, 1, 2), (2, 3, 2), (3, 2, 2), (3, 1, 3), (5, 1, 2)])


def mean_near(x: torch.Tensor, place: torch.Tensor, number: int) -> torch.Tensor:
    """Mean of the ceil(n / number) of the points x that are nearest to a place."""
    return x[(x - place).square().sum(1).argsort()[: math.ceil(len(x) / number)]].mean(0)


@SHAPES
def test_centers_are_around_farthest_points(dims, per_side, centers):
    pos, ptr = cloud(90, 13, dims=dims)
    plan = Cloud().plan(pos, ptr, per_side, centers)
    window, at = windows(plan), pooled(plan, pos)  # (S, M, D)
    assert at.shape == (plan.num_windows, centers**2, dims)
    for s in range(plan.num_windows):
        x = pos[window == s]
        picks = [0]
        while len(picks) < centers**2:
            d = (x[:, None] - x[picks]).square().sum(2).amin(1)
            picks.append(int(d.argmax()) if d.max() > 0 else 0)
        torch.testing.assert_close(at[s], torch.stack([mean_near(x, x[p], centers**2) for p in picks]))


@SHAPES
def test_centers_are_around_points_of_a_grid(dims, per_side, centers):
    pos, ptr = cloud(90, dims=dims)
    pos[0], pos[1] = -5, 5  # the corners
    plan = Cloud("grid").plan(pos, ptr, per_side, centers)
    window, at = windows(plan), pooled(plan, pos)
    assert at.shape == (plan.num_windows, centers**dims, dims)
    steps = torch.cartesian_prod(*[(torch.arange(centers).double() + 0.5) / centers] * dims).view(-1, dims)
    for s in range(plan.num_windows):
        x = pos[window == s]
        box = ((x[0] + 5) / 10 * per_side).floor().clamp(max=per_side - 1)
        proposals = (box + steps) / per_side * 10 - 5
        torch.testing.assert_close(at[s], torch.stack([mean_near(x, p, centers**dims) for p in proposals]))


@SHAPES
def test_centers_are_around_random_points(dims, per_side, centers):
    pos, ptr = cloud(90, 13, dims=dims)
    plan = Cloud("random").plan(pos, ptr, per_side, centers)
    window, at = windows(plan), pooled(plan, pos)
    for s in range(plan.num_windows):
        x = pos[window == s]
        around_any = torch.stack([mean_near(x, p, centers**2) for p in x])
        assert (torch.cdist(at[s], around_any).amin(1) < 1e-7).all()
    few = torch.tensor([0, centers**2])  # then each point is a center
    assert Cloud("random").plan(pos[: few[1]], few, 1, centers).center_valid.all()


def test_centers_of_the_same_points_count_once():
    pos = torch.tensor([[0.0], [1.0], [1.0], [5.0]], dtype=torch.float64)
    plan = Cloud().plan(pos, torch.tensor([0, 4]), 1, 3)  # nine centers of one point each, three different places
    assert plan.center_valid.sum() == 3 and plan.center_valid[0, :3].all()


# ---- sets that are hard to cut ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["fps", "random"])  # a grid has cells where the positions say
def test_one_place_is_one_cluster(sampling):
    feat = torch.randn(9, 2).double()
    plan = Cloud(sampling).plan(torch.ones(9, 3).double(), torch.tensor([0, 9]), 2, 1)
    torch.testing.assert_close(pooled(plan, feat)[0, 0], feat.mean(0))


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_origin(dtype, sampling):
    """Coordinates of a map, in meters: in single precision they lie on a lattice of half a meter."""
    near = torch.rand(400, 3, dtype=torch.float64) * torch.tensor([64.0, 64, 8], dtype=torch.float64)
    near = (near * 2).round() / 2  # so that both precisions hold them
    far = (near + torch.tensor([5e6, 3e5, 1e3], dtype=torch.float64)).to(dtype)
    near, ptr = near.to(dtype), torch.tensor([0, 400])
    layout = Cloud(sampling)
    for share in (4, 16):
        assert torch.equal(layout.anchors(near, ptr, share)[0], layout.anchors(far, ptr, share)[0])
    plans = [layout.plan(x, ptr, 4, 2) for x in (near, far)]
    assert torch.equal(windows(plans[0]), windows(plans[1]))
    torch.testing.assert_close(pooled(plans[0], near), pooled(plans[1], near))


def test_windows_of_many_dimensions_stay_within_their_set():
    pos, ptr = torch.rand(60, 24, dtype=torch.float64), torch.tensor([0, 30, 60])
    plan = Cloud().plan(pos, ptr, 8, 1)
    assert plan.num_windows == 60  # alone in a corner of so many, each of them
    assert Cloud().plan(pos[:1].expand(60, -1), ptr, 8, 1).num_windows == 2


# ---- one more level, rolled boxes -----------------------------------------------------------------------------------


def layered(points: PointSet, per_side: int, centers: int, sampling: str = "fps", **kwargs):
    return Cloud(sampling).plan(points.pos, points.ptr, per_side, centers, pad="needed", **kwargs)


def test_centers_that_coincide_are_kept_if_lattices_keep_them():
    points = PointSet.from_points(torch.tensor([[0.0], [1.0], [1.0], [5.0]], dtype=torch.float64))
    assert layered(points, 1, 3).center_valid.all()  # of nine centers of one point each, three different places


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("dims, per_side", [(1, 7), (2, 3), (3, 2), (3, 1)])
def test_rolled_boxes(dims, per_side, sampling):
    """Box k reaches from half a box before its place to half a box after, the first one around the border."""
    pos, ptr = cloud(200, 2, 30, dims=dims)
    plan = layered(PointSet(pos, pos, ptr), per_side, 2, sampling, shift=True)
    window, key = windows(plan), []
    for b in range(3):
        x = pos[ptr[b] : ptr[b + 1]]
        box = ((x - x.amin(0)) / (x.amax(0) - x.amin(0)) * per_side + 0.5).floor() % per_side
        key += [(b, *row) for row in box.long().tolist()]
    boxes = sorted(set(key))
    assert window.tolist() == [boxes.index(k) for k in key]


@pytest.mark.parametrize("sampling", ["fps", "grid"])
@pytest.mark.parametrize("dims, per_side, top", [(1, 7, 2), (2, 3, 2), (3, 2, 2), (3, 1, 1)])
def test_boxes_are_points_of_one_more_level(dims, per_side, top, sampling):
    """The mean of each box, and means of what lies nearest to proposals over the whole set."""
    pos, ptr = cloud(150, 40, 1, dims=dims)
    plan = layered(PointSet(pos, pos, ptr), per_side, 1, sampling, global_centers_per_side=top)
    window, rows, over = windows(plan), plan.window_partition(plan.to_window_order(pos)), plan.upper
    means = torch.stack([pos[window == s].mean(0) for s in range(plan.num_windows)])
    torch.testing.assert_close(over.mean(rows), means)
    slots = over.set_partition(means)
    assert slots.shape[0] == 3 and int(over.valid.sum()) == plan.num_windows and over.valid.sum(1)[2] == 1
    torch.testing.assert_close(over.set_reverse(slots), means)
    around = over.pool_centers(rows)
    assert around.shape == (3, top**dims if sampling == "grid" else top**2, dims) and over.center_valid.all()
    steps = torch.cartesian_prod(*[(torch.arange(top).double() + 0.5) / top] * dims).view(-1, dims)
    for b in range(2):
        x = pos[ptr[b] : ptr[b + 1]]
        if sampling == "fps":
            any_near = torch.stack([mean_near(x, p, top**2) for p in x])
            assert (torch.cdist(around[b], any_near).amin(1) < 1e-7).all()
        else:  # in units of the set's box
            low, extent = x.amin(0), x.amax(0) - x.amin(0)
            near = torch.stack([mean_near((x - low) / extent, p, top**dims) for p in steps])
            torch.testing.assert_close(around[b], low + near * extent)
        if top == 1:
            torch.testing.assert_close(around[b, 0], x.mean(0))
    torch.testing.assert_close(around[2], pos[-1:].expand_as(around[2]))


@pytest.mark.parametrize("shift", [False, True])
def test_offsets_are_from_centers(shift):
    pos, ptr = cloud(60, 5, dims=3)
    plan = with_relative_pos(layered(PointSet(pos, pos, ptr), 2, 2, shift=shift), pos)
    window, centers = windows(plan), pooled(plan, pos)
    own = plan.from_window_order(plan.window_reverse(plan.relative_pos.transpose(1, 2).flatten(2))).view(-1, 4, 3)
    torch.testing.assert_close(own, pos[:, None] - centers[window])
