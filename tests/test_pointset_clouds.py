"""Free points as sets: `PointSet.from_points` and clouds in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud


@pytest.mark.parametrize("dims", [1, 2, 3, 7])
def test_from_points_keeps_what_it_is_given(dims):
    xyz, feat = torch.randn(5, dims), torch.randn(5, 4)
    points = PointSet.from_points(xyz, feat)
    assert torch.equal(points.pos, xyz) and torch.equal(points.feat, feat)
    assert points.ptr.tolist() == [0, 5] and points.layout == Cloud()


def test_features_are_optional_may_be_one_a_point_and_arrays_will_do():
    assert PointSet.from_points(torch.rand(5, 3).double()).feat.shape == (5, 0)
    points = PointSet.from_points(np.ones((5, 3), np.float32), np.arange(5.0))
    assert points.feat.tolist() == [[0], [1], [2], [3], [4]] and points.pos.dtype == torch.float32


@pytest.mark.parametrize(
    "xyz, feat, message",
    [
        (torch.rand(5), None, r"expected positions \(N, D\) and features \(N, C\) .* got \(5,\)"),
        (torch.rand(()), None, r"expected positions \(N, D\)"),
        (torch.rand(2, 5, 3), None, r"got \(2, 5, 3\)"),
        (torch.rand(0, 3), None, "at least one point"),
        (torch.rand(5, 0), None, "at least one point"),
        (torch.rand(5, 3), torch.rand(4, 2), r"got \(5, 3\) and \(4, 2\)"),
        (torch.rand(5, 3), torch.rand(5, 2, 2), r"and \(5, 2, 2\)"),
        (torch.ones(5, 3).long(), None, "must be floating point, got torch.int64"),
        (torch.rand(5, 3), torch.ones(5, 1).int(), "must be floating point, got torch.float32, torch.int32"),
        (torch.rand(3, 500), None, r"positions are \(3, 500\), expected \(N, 3\): they are transposed"),
        (torch.rand(5, 3), torch.rand(2, 5), r"features are \(2, 5\), expected \(N, C\): they are transposed"),
        (torch.tensor([[0.0, torch.nan], [1, 1]]), None, "xyz holds NaN or infinite values at 1 of 2 points"),
        (torch.rand(2, 3), torch.full((2, 1), -torch.inf), "feat holds NaN or infinite values at 2 of 2 points"),
    ],
)
def test_bad_points_are_named(xyz, feat, message):
    with pytest.raises(ValueError, match=message):
        PointSet.from_points(xyz, feat)


def test_clouds_of_any_sizes_make_a_batch_and_come_apart():
    sets = [PointSet.from_points(torch.randn(n, 3), torch.randn(n, 2)) for n in (4, 1, 9)]
    both = PointSet.cat(sets)
    assert both.num_sets == 3 and both.ptr.tolist() == [0, 4, 5, 14] and both.layout == Cloud()
    for given, again in zip(sets, both.unbind(), strict=True):
        assert torch.equal(given.pos, again.pos) and torch.equal(given.feat, again.feat)


def test_clouds_of_other_dimensions_or_lattices_do_not_go_together():
    cloud, image = PointSet.from_points(torch.rand(4, 2), torch.rand(4, 3)), PointSet.from_image(torch.rand(3, 2, 2))
    with pytest.raises(ValueError, match="differ in kind"):
        PointSet.cat([cloud, image])
    assert PointSet.cat([cloud, image.as_cloud()]).num_sets == 2
    with pytest.raises(ValueError, match=r"or in \(D, C\)"):
        PointSet.cat([cloud, PointSet.from_points(torch.rand(4, 3), torch.rand(4, 3))])


def test_a_batch_of_as_many_points_each():
    batch = torch.randn(2, 5, 3)
    points = PointSet.from_batch(batch)
    assert points.ptr.tolist() == [0, 5, 10] and torch.equal(points.pos, batch.flatten(0, 1))
    assert points.feat.shape == (10, 0)


def test_subset_and_order():
    points = PointSet.from_points(torch.arange(15.0).view(5, 3), torch.arange(5.0))
    assert points.subset(torch.tensor([3, 0])).feat.flatten().tolist() == [3, 0]
    assert points.subset(points.feat[:, 0] > 2).feat.flatten().tolist() == [3, 4]
    assert isinstance(points.subset(torch.tensor([1])).layout, Cloud)


def test_a_picked_order_is_forgotten_when_points_are_taken_out():
    nested = PointSet(torch.rand(6, 3), torch.rand(6, 1), torch.tensor([0, 6]), Cloud("fps", nested=True))
    for other in (nested.subset(torch.tensor([5, 0, 3])), PointSet.cat([nested, nested]), nested.unbind()[0]):
        assert not other.layout.nested
    assert nested.to(torch.float64).layout.nested and nested.with_feat(nested.feat).layout.nested


def test_a_cloud_on_a_device_keeps_its_layout():
    points = PointSet.from_points(torch.rand(4, 3)).to(torch.float64)
    assert points.pos.dtype == points.feat.dtype == torch.float64 and points.ptr.dtype == torch.int64
    assert repr(points) == "PointSet(1 set, 4 points, 0 channels, cloud, float64, cpu)"


def test_arrays_of_doubles_fit_a_model_in_single_precision():
    xyz = np.random.default_rng(0).random((20, 3))
    points = PointSet.from_points(xyz, xyz)
    assert points.pos.dtype == torch.float64 and points.feat.dtype == torch.float32
    assert PointSet.from_points(xyz).feat.dtype == torch.float32
    assert PointSet.from_points(torch.from_numpy(xyz)).feat.dtype == torch.float64
