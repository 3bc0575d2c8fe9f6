from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.plan import IndexPlan, UniformPlan, index_plan, with_relative_pos


def plan_of(points: PointSet, per_side: int, centers: int):
    return points.layout.plan(points.pos.double(), points.ptr, per_side, centers)


def windows_of(x: torch.Tensor, per_side: int) -> list[torch.Tensor]:
    """The windows of maps (B, C, H, W) by slicing, set by set and row by row, each (C, h, w)."""
    cuts = []
    for side in x.shape[2:]:
        parts = min(per_side, side)
        window = torch.arange(side) * parts // side
        cuts.append([(window == k).nonzero().flatten() for k in range(parts)])
    return [image[:, rows][:, :, cols] for image in x for rows in cuts[0] for cols in cuts[1]]


EVEN = [
    ((8, 8), 1, 2),
    ((8, 8), 4, 2),
    ((8, 12), 4, 1),
    ((14, 14), 2, 7),
    ((7, 7), 1, 2),
    ((7, 7), 1, 4),
    ((3, 5), 8, 2),
]
UNEVEN = [
    ((8, 8), 3, 2),
    ((13, 7), 4, 2),
    ((1, 7), 4, 2),
    ((5, 1), 8, 4),
    ((97, 31), 7, 5),
    ((10, 11), 1, 4),
    ((3, 50), 8, 2),
]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size, per_side, centers", EVEN + UNEVEN)
def test_pool_is_adaptive_average_pooling_of_each_window(size, per_side, centers, sparse):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    points = PointSet.from_images(x)
    points = points.as_sparse() if sparse else points
    plan = plan_of(points, per_side, centers)
    pooled = plan.pool_centers(plan.window_partition(plan.to_window_order(points.feat)))  # (S, M, C)
    expected = torch.stack([F.adaptive_avg_pool2d(w, centers).flatten(1).T for w in windows_of(x, per_side)])
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size, per_side, centers", EVEN + UNEVEN)
def test_rows_hold_the_points_of_their_window(size, per_side, centers, sparse):
    x = torch.randn(2, 1, *size, dtype=torch.float64)
    points = PointSet.from_images(x)
    points = points.as_sparse() if sparse else points
    plan = plan_of(points, per_side, centers)
    rows = plan.window_partition(plan.to_window_order(points.feat))[..., 0]  # (R, L)
    valid = torch.ones_like(rows, dtype=torch.bool) if plan.valid is None else plan.valid
    window = torch.arange(len(rows)) if plan.row_window is None else plan.row_window
    for s, expected in enumerate(windows_of(x, per_side)):
        found = rows[window == s][valid[window == s]]
        assert torch.equal(found.sort().values, expected.flatten().sort().values)
        padding = rows[window == s][~valid[window == s]]
        assert torch.isin(padding, expected).all()  # empty slots repeat points of their own window


@pytest.mark.parametrize("size, per_side, centers", EVEN + UNEVEN)
def test_kind_of_plan(size, per_side, centers):
    parts = [min(per_side, side) for side in size]
    even = all(side % n == 0 and side // n >= centers for side, n in zip(size, parts, strict=True))
    points = PointSet.from_images(torch.zeros(1, 1, *size, dtype=torch.float64))
    plan = plan_of(points, per_side, centers)
    assert isinstance(plan, UniformPlan if even else IndexPlan)


def all_kinds(per_side: int, centers: int):
    x = torch.randn(2, 3, 13, 8, dtype=torch.float64)
    mask = torch.rand(13, 8) < 0.3
    mask[0, 0] = True
    even, uneven = PointSet.from_images(x[:, :, :8]), PointSet.from_images(x)
    masked = PointSet.from_images([*x, x[0, :, :2, :3]], [mask, None, None])
    return [(points, plan_of(points, per_side, centers)) for points in (even, uneven, masked)]


@pytest.mark.parametrize("per_side", [1, 4])
def test_leave_undoes_enter_and_merge_undoes_split(per_side):
    for points, plan in all_kinds(per_side, 2):
        assert torch.equal(plan.from_window_order(plan.to_window_order(points.feat)), points.feat)
        inside = plan.to_window_order(points.feat)
        assert torch.equal(plan.window_reverse(plan.window_partition(inside)), inside)


@pytest.mark.parametrize("per_side", [1, 4])
def test_pool_means_present_points_only(per_side):
    for points, plan in all_kinds(per_side, 2):
        constant = plan.pool_centers(plan.window_partition(plan.to_window_order(torch.full_like(points.feat, 3.0))))
        exists = (
            plan.center_valid if plan.center_valid is not None else torch.ones(constant.shape[:2], dtype=torch.bool)
        )
        torch.testing.assert_close(constant[exists], torch.full_like(constant[exists], 3.0))
        assert torch.isin(constant[~exists], torch.tensor([0.0, 3.0], dtype=constant.dtype)).all()  # empty or repeated
        assert exists.any(1).all()  # every window has a center


@pytest.mark.parametrize(
    "size, per_side, centers", [((8, 8), 3, 2), ((13, 7), 4, 2), ((97, 31), 7, 5), ((3, 50), 8, 2)]
)
def test_uneven_grid_and_sparse_grid_plan_alike(size, per_side, centers):
    points = PointSet.from_images(torch.randn(2, 3, *size, dtype=torch.float64))
    grid, sparse = plan_of(points, per_side, centers), plan_of(points.as_sparse(), per_side, centers)
    assert grid.num_windows == sparse.num_windows and torch.equal(grid.center_valid, sparse.center_valid)
    assert torch.equal(grid.order, sparse.order)
    inside = grid.to_window_order(points.feat)
    torch.testing.assert_close(
        grid.pool_centers(grid.window_partition(inside)), sparse.pool_centers(sparse.window_partition(inside))
    )
    rows = torch.arange(sparse.num_windows) if sparse.row_window is None else sparse.row_window
    window = torch.arange(grid.num_windows)[:, None].expand_as(grid.partition_index).reshape(-1)[grid.reverse_index]
    assert torch.equal(window, rows[:, None].expand_as(sparse.partition_index).reshape(-1)[sparse.reverse_index])


@pytest.mark.parametrize("density", [0.02, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("per_side", [1, 4, 8])
def test_slots_are_linear_in_points(density, per_side):
    """However unevenly the points lie: at most two slots a point and two more a window."""
    images = torch.randn(4, 1, 61, 40)
    masks = torch.rand(4, 61, 40) < density
    masks[:, 0, 0] = True
    masks[0, :20, :20] = True  # one crowded corner
    points = PointSet.from_images(list(images), masks)
    plan = plan_of(points, per_side, 2)
    number = len(points.feat)
    assert int(plan.valid.sum()) == number and plan.partition_index.numel() <= 2 * number + 2 * plan.num_windows
    assert torch.equal(plan.partition_index.flatten()[plan.reverse_index], torch.arange(number))


def test_a_crowded_window_takes_several_rows():
    mask = torch.zeros(8, 8)
    mask[:4, :4], mask[0, 7], mask[7, 0], mask[7, 7] = 1, 1, 1, 1
    points = PointSet.from_image(torch.randn(1, 8, 8, dtype=torch.float64), mask)
    plan = plan_of(points, 2, 2)
    assert plan.num_windows == 4 and plan.row_window.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert plan.partition_index.numel() < 2 * len(points.feat)
    assert plan.center_valid.tolist() == [[True] * 4, *([i == m for i in range(4)] for m in (1, 2, 3))]
    inside = (points.layout.cell < 4).all(1)
    pooled = plan.pool_centers(plan.window_partition(plan.to_window_order(points.feat)))
    rows = plan.window_partition(plan.to_window_order(points.feat))[:4][plan.valid[:4]]
    assert torch.equal(rows.sort(0).values, points.feat[inside].sort(0).values)
    center = points.layout.cell // 2
    for m, mean in enumerate(pooled[0]):
        around = inside & (center[:, 0] * 2 + center[:, 1] == m)
        torch.testing.assert_close(mean, points.feat[around].mean(0))
    torch.testing.assert_close(pooled[3, 3], points.feat[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pool_keeps_the_dtype(dtype):
    for points, plan in all_kinds(4, 2):
        assert plan.pool_centers(plan.window_partition(plan.to_window_order(points.feat.to(dtype)))).dtype == dtype


# ---- points with copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_side", [1, 4])
def test_a_plan_of_copies_is_one_of_points(per_side):
    """Copies fill slots and count in means; features are those of points alone."""
    for points, _ in all_kinds(per_side, 2):
        points = points.as_sparse()
        plan = points.layout.plan(points.pos, points.ptr, per_side, 2, pad="needed")
        inside = plan.to_window_order(points.feat)
        assert inside.shape == points.feat.shape and torch.equal(plan.from_window_order(inside), points.feat)
        rows = plan.window_partition(inside)
        assert torch.equal(plan.window_reverse(rows), inside)
        assert int(plan.valid.sum()) >= len(points.feat) == len(plan.reverse_index.unique())
        constant = plan.pool_centers(torch.full_like(rows, 3.0))[plan.center_valid]
        torch.testing.assert_close(constant, torch.full_like(constant, 3.0))


def test_copies_of_a_line_of_three():
    """Cells 0 1 2, copies of 1 before and of 1 and 0 after, in two windows of three: 1 0 1 and 2 1 0."""
    source, own = torch.tensor([1, 0, 1, 2, 1, 0]), torch.tensor([0, 1, 1, 1, 0, 0]).bool()
    merge_copies = index_plan(torch.arange(6), torch.tensor([3, 3]), torch.ones(6, 1).bool(), torch.float64)
    plan = merge_copies.merge_copies(source, own, 3)
    x = torch.tensor([[10.0], [20.0], [60.0]], dtype=torch.float64)
    rows = plan.window_partition(plan.to_window_order(x))
    assert rows[..., 0].tolist() == [[20, 10, 20], [60, 20, 10]]
    torch.testing.assert_close(plan.pool_centers(rows)[:, 0, 0], torch.tensor([50 / 3, 30], dtype=torch.float64))
    slots = torch.arange(6.0).view(2, 3, 1)
    assert plan.from_window_order(plan.window_reverse(slots))[:, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("per_side", [1, 4])
def test_packed_windows_are_stretches_of_the_points(per_side):
    """The points of a window's rows, in their order, without what is only padding."""
    for points, _ in all_kinds(per_side, 2):
        plan = plan_of(points.as_sparse(), per_side, 2)
        x = plan.to_window_order(points.feat)
        rows, valid, packed = plan.window_partition(x), plan.valid, plan.packed
        of_row = torch.arange(len(rows)) if plan.row_window is None else plan.row_window
        assert packed.ptr.tolist()[-1] == len(x) and len(packed.ptr) == plan.num_windows + 1
        for s, (begin, end) in enumerate(pairwise(packed.ptr.tolist())):
            assert torch.equal(packed.window_partition(x)[begin:end], rows[of_row == s][valid[of_row == s]])
        numbers = torch.arange(plan.num_windows)[:, None]
        spread = plan.broadcast(numbers).expand(*rows.shape[:2], 1).contiguous()
        assert torch.equal(packed.window_reverse(packed.broadcast(numbers)), plan.window_reverse(spread))
        assert packed.center_valid is plan.center_valid


@pytest.mark.parametrize("per_side", [1, 4])
def test_packed_windows_of_full_grids(per_side):
    points = PointSet.from_batch(torch.randn(2, 3, 12, 8))
    plan, sparse = (plan_of(p, per_side, 2) for p in (points, points.as_sparse()))
    assert isinstance(plan, UniformPlan) and sparse.as_packed() is sparse.packed
    with torch.inference_mode():
        packed = plan.as_packed()
    assert packed is plan.as_packed() and not packed.ptr.is_inference()
    for name in ("ptr", "window", "members", "center_valid"):
        assert torch.equal(getattr(packed, name), getattr(sparse.packed, name)), name


def test_only_points_in_one_slot_are_packed():
    for side, there in ((8, True), (7, False)):  # which is reflected
        points = PointSet.from_images(torch.randn(1, 3, side, side)).as_sparse()
        plan = points.layout.plan(points.pos, points.ptr, 2, 2, pad="needed")
        assert (plan.packed is not None) == there == (plan.partition_index.numel() == side * side)


def test_coinciding_centers_are_kept_on_request():
    members = torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()  # (N, M): around two centers lies the same point
    for distinct, expected in ((True, [[True, False, False]]), (False, [[True, True, False]])):
        plan = index_plan(torch.arange(2), torch.tensor([2]), members, torch.float64, distinct=distinct)
        assert plan.center_valid.tolist() == expected


@pytest.mark.parametrize("per_side", [1, 4])
def test_offsets_of_every_kind_of_plan(per_side):
    for points, plan in all_kinds(per_side, 2):
        found = with_relative_pos(plan, points.pos)
        rows = plan.window_partition(plan.to_window_order(points.pos))
        centers = plan.pool_centers(rows)[slice(None) if plan.row_window is None else plan.row_window]
        torch.testing.assert_close(found.relative_pos, rows[:, None] - centers[:, :, None])
        assert type(found) is type(plan) and plan.relative_pos is None


@pytest.mark.parametrize("kind", ["grid", "uneven grid", "sparse", "cloud"])
def test_means_of_more_points_than_half_precision_counts(kind):
    points = PointSet.from_images(torch.ones(1, 1, 265, 265))  # 70225 points
    points = dict(sparse=points.as_sparse, cloud=points.as_cloud).get(kind, lambda: points)()
    centers = 2 if kind == "uneven grid" else 1  # of 265 rows, no half
    plan = points.layout.plan(points.pos.half(), points.ptr, 1, centers)
    mean = plan.pool_centers(plan.window_partition(plan.to_window_order(points.feat.half())))
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=torch.finfo(mean.dtype).eps, atol=0)
