"""The upper level of a plan: windows as points of their sets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.upper import IndexUpperLevel, UniformUpperLevel

F64 = dict(dtype=torch.float64)


def resized(table: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A table (E, M, T, T) on a lattice, (M, E, H W)."""
    return F.interpolate(table, size, mode="bilinear", align_corners=True).flatten(2).transpose(0, 1)


def planned(points: PointSet, per_side: int, top: int, pad: str = "needed"):
    """The plan, and its rows of features."""
    settings = dict(pad=pad, table_size=7, global_centers_per_side=top)
    plan = points.layout.plan(points.pos.double(), points.ptr, per_side, 1, **settings)
    return plan, plan.window_partition(plan.to_window_order(points.feat))


def continued(x: torch.Tensor, per_side: int, pad: str) -> torch.Tensor:
    """Maps (B, C, H, W) continued by reflection."""
    extra = [-side % per_side if pad == "needed" else per_side - side % per_side for side in x.shape[2:]]
    (above, left), (below, right) = ([e // 2 for e in extra], [e - e // 2 for e in extra])
    return F.pad(x, (left, right, above, below), mode="reflect")


@pytest.mark.parametrize("sparse", [False, True], ids=["even", "index"])
@pytest.mark.parametrize("pad", ["needed", "always"])
@pytest.mark.parametrize("size, per_side, top", [((8, 12), 4, 2), ((14, 14), 7, 4), ((9, 13), 4, 3), ((5, 6), 1, 1)])
def test_full_lattices_against_literal_means(size, per_side, top, pad, sparse):
    x = torch.randn(2, 3, *size, **F64)
    points = PointSet.from_images(x)
    plan, rows = planned(points.as_sparse() if sparse else points, per_side, top, pad)
    over = plan.upper
    assert isinstance(over, IndexUpperLevel if sparse else UniformUpperLevel)
    wide = continued(x, per_side, pad)
    mean = F.adaptive_avg_pool2d(wide, per_side).permute(0, 2, 3, 1).reshape(-1, 3)  # (S, C)
    torch.testing.assert_close(over.mean(rows), mean)
    around = F.adaptive_avg_pool2d(wide, top).flatten(2).transpose(1, 2)  # (B, G, C)
    torch.testing.assert_close(over.pool_centers(rows), around)
    assert torch.equal(over.set_partition(mean), mean.view(2, per_side**2, 3)) and torch.equal(
        over.set_reverse(over.set_partition(mean)), mean
    )
    assert over.valid is None or over.valid.all()
    assert over.center_valid is None or over.center_valid.all()


@pytest.mark.parametrize("size", [(28, 28), (30, 33), (2, 30)], ids=str)
def test_taps_of_windows_are_those_of_their_lattice(size):
    """Seven windows a side read their table of seven as it is; fewer, where a side is short, interpolate it."""
    points = PointSet.from_images(torch.randn(2, 1, *size, **F64))
    table = torch.randn(2, 3, 7, 7, **F64)
    expected = resized(table, tuple(min(7, side) for side in size))
    for p in (points, points.as_sparse()):
        found = planned(p, 7, 2)[0].upper.table_lookup.read(table)
        for row in found:
            torch.testing.assert_close(row, expected)


def test_ragged_sets_against_literal_means(ragged):
    plan, rows = planned(ragged, 4, 2)
    over = plan.upper
    mean, around, center = [], [], []
    maps = ragged.to_image()
    masks = ragged.with_feat(torch.ones_like(ragged.feat[:, :1])).to_image()
    for x, mask in zip(maps, masks, strict=True):
        x, mask = (continued(t[None], 4, "needed")[0] for t in (x, mask))
        h, w = (side // 4 for side in mask.shape[1:])
        for i in range(4):
            for j in range(4):
                part = mask[0, i * h : (i + 1) * h, j * w : (j + 1) * w].bool()
                if part.any():
                    mean.append(x[:, i * h : (i + 1) * h, j * w : (j + 1) * w][:, part].mean(1))
        share = F.adaptive_avg_pool2d(mask, 2).flatten()
        center.append(share > 0)
        around.append((F.adaptive_avg_pool2d(x * mask, 2).flatten(1) / share).T.nan_to_num())  # (G, C)
    assert plan.num_windows == len(mean) < 3 * 16
    torch.testing.assert_close(over.mean(rows), torch.stack(mean))
    torch.testing.assert_close(over.pool_centers(rows), torch.stack(around))
    assert torch.equal(over.center_valid, torch.stack(center)) and not over.center_valid.all()


def test_sets_have_slots_for_windows_they_have(ragged):
    plan, rows = planned(ragged, 4, 2)
    over, mean = plan.upper, plan.upper.mean(rows)
    slots = over.set_partition(mean)
    counts = over.valid.sum(1).tolist()
    assert counts == [16, 16, 4] and sum(counts) == plan.num_windows == len(mean)
    for row, valid, part in zip(slots, over.valid, mean.split(counts), strict=True):
        assert torch.equal(row[valid], part)
        assert (row[~valid] == part[-1]).all()  # of the set itself, so that nothing comes from another
    assert torch.equal(over.set_reverse(slots), mean)


def test_a_crowded_window_has_one_mean():
    """Several rows of one window are one point of the level above."""
    mask = torch.zeros(8, 8)
    mask[:4, :4], mask[0, 7], mask[7, 0] = 1, 1, 1
    points = PointSet.from_image(torch.randn(2, 8, 8, **F64), mask)
    plan, rows = planned(points, 2, 1)
    assert plan.row_window is not None and plan.num_windows == 3
    crowd = points.feat[(points.layout.cell < 4).all(1)].mean(0)
    lonely = [points.feat[(points.layout.cell == torch.tensor(at)).all(1)][0] for at in ((0, 7), (7, 0))]
    torch.testing.assert_close(plan.upper.mean(rows), torch.stack([crowd, *lonely]))
    torch.testing.assert_close(plan.upper.pool_centers(rows), points.feat.mean(0)[None, None])


@pytest.mark.parametrize("layout", ["grid", "sparse", "cloud"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_keep_the_dtype(dtype, layout):
    points = PointSet.from_images(torch.randn(2, 3, 8, 8))
    points = dict(grid=points, sparse=points.as_sparse(), cloud=points.as_cloud())[layout]
    plan, rows = planned(points.with_feat(points.feat.to(dtype)), 4, 2)
    assert plan.upper.mean(rows).dtype == dtype == plan.upper.pool_centers(rows).dtype


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_more_points_than_half_precision_counts(dtype, rows):
    slots, row_window = 70_000 // rows, None if rows == 1 else torch.zeros(rows, dtype=torch.int64)
    members, valid = torch.ones(rows, slots, 1, dtype=torch.bool), torch.ones(rows, slots, dtype=torch.bool)
    over = IndexUpperLevel.of(members, valid, row_window, torch.zeros(1, dtype=torch.int64), 1, dtype)
    x = torch.ones(rows, slots, 1, dtype=dtype)
    for mean in (over.mean(x), over.pool_centers(x)[0]):
        torch.testing.assert_close(mean, torch.ones(1, 1, dtype=dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_clouds_have_no_table():
    pos = torch.randn(30, 3, **F64)
    plan = Cloud().plan(pos, torch.tensor([0, 30]), 2, 2, pad="needed", table_size=7, global_centers_per_side=2)
    assert plan.table_lookup is None and plan.upper.table_lookup is None
