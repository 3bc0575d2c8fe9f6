from __future__ import annotations

import torch

from pointmix import PointSet
from pointmix.nn.grouper import Groups
from pointmix.ops.sampling import farthest_point_sampling


def batch_of(*sizes: int) -> PointSet:
    return PointSet.cat([PointSet.from_points(torch.randn(n, 3)) for n in sizes])


def test_half_of_each_set_and_never_none():
    groups = Groups.of(batch_of(1, 2, 3, 4, 9, 1024), 24)
    assert groups.ptr.diff().tolist() == [1, 1, 1, 2, 4, 512]
    assert groups.neighbors.shape == (len(groups.anchor), 24) and groups.num_sets == 6
    assert groups.batch.tolist() == [0, 1, 2, 3, 3, 4, 4, 4, 4] + [5] * 512


def test_anchors_are_farthest_points():
    points = batch_of(9, 64)
    groups = Groups.of(points, 3)
    for part, b in zip(points.unbind(), range(2), strict=True):
        expected = farthest_point_sampling(part.pos, part.ptr, len(part.pos) // 2)[0]
        assert torch.equal(groups.anchor[groups.batch == b] - points.ptr[b], expected)


def test_later_stages_take_the_first_anchors_which_are_the_farthest_again():
    points = batch_of(9, 64, 1)
    groups = Groups.of(points, 3)
    kept = groups.as_points(points, torch.zeros(len(groups.anchor), 2))
    assert kept.layout.nested
    again, fresh = Groups.of(kept, 3), Groups.of(PointSet(kept.pos, kept.feat, kept.ptr), 3)
    assert torch.equal(again.anchor, fresh.anchor) and torch.equal(again.neighbors, fresh.neighbors)


def test_neighbors_begin_with_the_anchor_and_repeat_where_points_run_out():
    points = batch_of(5, 40)
    groups = Groups.of(points, 12)
    assert torch.equal(groups.neighbors[:, 0], groups.anchor)
    few = groups.neighbors[groups.batch == 0]
    assert torch.equal(few[:, 5:10], few[:, :5]) and torch.equal(few[:, 10:], few[:, :2])
    many = groups.neighbors[groups.batch == 1]
    assert all(len(set(row.tolist())) == 12 and row.min() >= 5 for row in many)


def test_neighbors_come_from_the_same_set():
    groups = Groups.of(batch_of(30, 30, 30), 24)
    assert torch.equal(groups.neighbors // 30, groups.batch[:, None].expand_as(groups.neighbors))
