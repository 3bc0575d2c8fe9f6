"""Test data with some of the points left out."""

from __future__ import annotations

import pytest
import torch

from pointmix import PointSet
from pointmix.data.segment.sample import SegmentBatch
from pointmix.tasks.segment.keep import Kept


class Batches(list):
    samples, failed = range(3), {"a": "torn"}


def labeled(points):
    return SegmentBatch(points, torch.arange(len(points.feat)), None)


def images(sparse=False):
    found = [PointSet.from_images(torch.randn(1, 3, 12, 10)) for _ in range(3)]
    if sparse:
        found = [p.subset(torch.arange(0, 120, 2)) for p in found]
    return Batches(map(labeled, found))


def clouds():
    return Batches(labeled(PointSet.from_points(torch.randn(50, 3))) for _ in range(3))


@pytest.mark.parametrize("batches", [images(), images(sparse=True), clouds()])
@pytest.mark.parametrize("kind", ["patches", "block", "pixels"])
def test_points_and_labels_stay_together_and_shares_are_nested(batches, kind):
    before = torch.random.get_rng_state()
    few, more, again = (list(Kept(batches, share, kind=kind, patch=3)) for share in (0.3, 0.7, 0.3))
    assert torch.equal(before, torch.random.get_rng_state())
    for whole, small, large, same in zip(batches, few, more, again, strict=True):
        assert torch.equal(small.points.feat, whole.points.feat[small.labels - whole.labels[0]])
        assert torch.equal(small.labels, same.labels)
        if kind != "block":
            assert set(small.labels.tolist()) <= set(large.labels.tolist())
        assert abs(len(small.labels) / len(whole.labels) - 0.3) < 0.16
        assert small.points.layout.__class__.__name__ in ("SparseGrid", "Cloud")
    if kind == "pixels":
        assert not torch.equal(few[0].labels, few[1].labels)  # another mask for each sample


def test_all_points_are_the_loader_itself():
    batches = images()
    kept = Kept(batches, 1.0, kind="pixels", patch=1)
    assert [a is b for a, b in zip(kept, batches, strict=True)] == [True] * 3
    assert kept.samples == range(3) and kept.failed == {"a": "torn"}


def test_one_point_is_left_at_least():
    lattice = PointSet.from_pixels(torch.randn(1, 3), [11], [9], (12, 10))
    for points in (lattice, PointSet.from_points(torch.randn(1, 3))):
        (batch,) = Kept(Batches([labeled(points)]), 0.01, kind="pixels", patch=1)
        assert len(batch.labels) == 1


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match="keep must be above 0 and at most 1"):
        Kept(clouds(), share, kind="pixels", patch=1)
