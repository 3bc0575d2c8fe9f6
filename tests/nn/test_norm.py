from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.nn.norm import PointNorm, SetIndex


def norm_of(channels: int) -> PointNorm:
    norm = PointNorm(channels).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def reference(norm: PointNorm, points: PointSet) -> torch.Tensor:
    """Group norm of each set by itself."""
    sets = [F.group_norm(s.feat.T[None], 1, norm.weight, norm.bias, norm.eps)[0].T for s in points.unbind()]
    return torch.cat(sets)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("kind", ["ragged", "grid", "sparse", "free"])
def test_is_group_norm_of_each_set(kind, offset, ragged):
    grid = PointSet.from_images(torch.randn(2, 3, 4, 5, dtype=torch.float64) * 3 + offset)
    points = {
        "ragged": ragged.with_feat(ragged.feat + offset),
        "grid": grid,
        "sparse": grid.as_sparse(),
        "free": PointSet(torch.rand(9, 3), torch.randn(9, 3, dtype=torch.float64) + offset, torch.tensor([0, 4, 9])),
    }[kind]
    norm = norm_of(3)
    torch.testing.assert_close(norm(points.feat, SetIndex.of(points)), reference(norm, points), rtol=1e-8, atol=1e-8)


def test_gradients(ragged):
    norm, sets = norm_of(3), SetIndex.of(ragged)
    feat = ragged.feat.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, sets), feat, fast_mode=True)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_dtype_and_accumulates_above_it(dtype, sparse):
    points = PointSet.from_images(torch.randn(2, 4, 40, 40) + 3)
    points = points.as_sparse() if sparse else points
    norm = PointNorm(4)
    out = norm(points.feat.to(dtype), SetIndex.of(points))
    assert out.dtype == dtype
    expected = norm(points.feat.to(dtype).float(), SetIndex.of(points))
    torch.testing.assert_close(out.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


def test_large_values_far_from_zero_in_float32():
    """The variance is that of the differences from the mean: no cancellation of large squares."""
    points = PointSet.from_images(torch.randn(2, 3, 16, 16) + 3000).subset(torch.arange(1, 512))  # sets of two sizes
    out = PointNorm(3)(points.feat, SetIndex.of(points))
    expected = PointNorm(3).double()(points.feat.double(), SetIndex.of(points))
    torch.testing.assert_close(out.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("sparse", [False, True])
def test_nan_stays_in_its_set(sparse):
    points = PointSet.from_images(torch.randn(3, 2, 4, 4))
    points = points.as_sparse() if sparse else points
    feat = points.feat.clone()
    feat[20] = float("nan")  # in the second set
    out = PointNorm(2)(feat, SetIndex.of(points)).view(3, 16, 2)
    assert out[1].isnan().all() and out[[0, 2]].isfinite().all()


@pytest.mark.parametrize("kind", ["ragged", "grid"])
def test_sets_mean_and_spread(kind, ragged):
    points = ragged if kind == "ragged" else PointSet.from_images(torch.randn(2, 3, 4, 5, dtype=torch.float64))
    sets = SetIndex.of(points)
    assert sets.num_sets == points.num_sets and sets.points_per_set == (20 if kind == "grid" else None)
    mean = torch.stack([s.feat.mean(0) for s in points.unbind()])
    torch.testing.assert_close(sets.mean(points.feat), mean)
    assert torch.equal(sets.broadcast(mean), mean[points.batch])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[(265, 265)], [(265, 265), (9, 3)]], ids=["even", "uneven"])
def test_means_of_more_points_than_half_precision_counts(sizes, dtype):
    points = PointSet.from_images([torch.full((1, *size), 100.0) for size in sizes])
    mean = SetIndex.of(points).mean(points.feat.to(dtype))
    assert mean.dtype == dtype and mean.flatten().tolist() == [100.0] * len(sizes)
