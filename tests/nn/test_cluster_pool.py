from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud
from pointmix.nn.cluster_pool import ClusterPool

F64 = dict(dtype=torch.float64)


def pool_of(**kwargs) -> ClusterPool:
    torch.manual_seed(1)
    pool = ClusterPool(3, 6, **kwargs).double()
    torch.nn.init.normal_(pool.norm.weight)
    torch.nn.init.normal_(pool.norm.bias)
    return pool


def released(pool: ClusterPool, x: torch.Tensor) -> torch.Tensor:
    """The released network's arithmetic on maps (B, C, H, W) of even sides."""
    q, v = (F.conv2d(x, m.weight[..., None, None], m.bias) for m in (pool.query, pool.value))
    c, cv = (F.avg_pool2d(t, 2).flatten(2).transpose(1, 2) for t in (q, v))  # (B, K, C)
    q, v = (t.flatten(2).transpose(1, 2) for t in (q, v))  # (B, N, C)
    s = F.normalize(c, dim=-1) @ F.normalize(q, dim=-1).transpose(1, 2)  # (B, K, N)
    hard = torch.zeros_like(s).scatter_(1, s.argmax(1, keepdim=True), 1.0)
    out = ((v[:, None] * hard[..., None]).sum(2) + cv) / (1 + hard.sum(2, keepdim=True))
    skip = F.conv2d(x, pool.skip.weight, pool.skip.bias, 2, 1)
    out = out.transpose(1, 2).reshape(skip.shape)
    return skip + F.group_norm(out, 1, pool.norm.weight, pool.norm.bias)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("size", [(2, 2), (8, 12), (2, 10)])
def test_is_the_released_arithmetic(size, reference, sparse):
    pool, x = pool_of(reference=reference), torch.randn(2, 3, *size, **F64)
    points = PointSet.from_images(x)
    out = pool(points.as_sparse() if sparse else points).to_image()
    torch.testing.assert_close(out, released(pool, x))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("reference", [False, True])
def test_windows_are_pooled_as_images_of_their_own(reference, sparse):
    """As the released detectors fold the map: the convolution reads all of it, clusters are those of a window."""
    pool, x = pool_of(reference=reference, windows_per_side=2), torch.randn(2, 3, 8, 12, **F64)
    points = PointSet.from_images(x)
    skip = F.conv2d(x, pool.skip.weight, pool.skip.bias, 2, 1)
    expected = []
    for image, shortcut in zip(x, skip, strict=True):
        halves = [torch.cat([_clusters(pool, part) for part in row.split(6, 2)], 2) for row in image.split(4, 1)]
        expected.append(shortcut + F.group_norm(torch.cat(halves, 1)[None], 1, pool.norm.weight, pool.norm.bias)[0])
    out = pool(points.as_sparse() if sparse else points).to_image()
    torch.testing.assert_close(out, torch.stack(expected))


def _clusters(pool: ClusterPool, image: torch.Tensor) -> torch.Tensor:
    """The clusters of one image of even sides, without the convolution and the norm."""
    plain = pool_of()
    plain.load_state_dict(pool.state_dict())
    torch.nn.init.zeros_(plain.skip.weight), torch.nn.init.zeros_(plain.skip.bias)
    plain.norm = torch.nn.Identity()
    plain.norm.forward = lambda out, sets: out
    return plain(PointSet.from_images(image[None])).to_image()[0]


def outcome(pool: ClusterPool, points: PointSet, probe: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients."""
    feat = points.feat.detach().requires_grad_()
    out = pool(points.with_feat(feat))
    trained = [feat, *(p for p in pool.parameters() if p.requires_grad)]
    return [out.feat, out.pos, *torch.autograd.grad((out.feat * probe).sum(), trained)]


@pytest.mark.parametrize("windows", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8, 12), (13, 11)])
def test_grid_and_sparse_grid_agree(size, windows):
    pool, points = pool_of(windows_per_side=windows), PointSet.from_images(torch.randn(2, 3, *size, **F64))
    probe = torch.randn(len(pool(points).feat), 6, **F64)
    for a, b in zip(*(outcome(pool, p, probe) for p in (points, points.as_sparse())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("keep_cells", ["area", "occupied"])
@pytest.mark.parametrize("cloud, windows", [(False, 1), (False, 2), (True, 1)])
def test_reference_form_on_ragged_sets(cloud, windows, keep_cells, ragged):
    points = ragged.as_cloud() if cloud else ragged
    settings = dict(keep_cells=keep_cells, windows_per_side=windows)
    fast, reference = (pool_of(reference=p, **settings) for p in (False, True))
    probe = torch.randn(len(fast(points).feat), 6, **F64)
    for a, b in zip(*(outcome(p, points, probe) for p in (fast, reference)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("keep_cells", ["area", "occupied"])
def test_order_and_other_sets_do_not_matter(keep_cells, windows, ragged, shuffle):
    pool, reducer = pool_of(keep_cells=keep_cells, windows_per_side=windows), pool_of(keep_cells=keep_cells).skip
    out = pool(ragged)
    torch.testing.assert_close(pool(shuffle(ragged)[0]).feat, out.feat)
    torch.testing.assert_close(torch.cat([pool(part).feat for part in ragged.unbind()]), out.feat)
    kept = reducer(ragged)
    assert torch.equal(kept.ptr, out.ptr) and torch.equal(kept.layout.cell, out.layout.cell)


def test_points_of_cells_that_are_gone_are_gathered_too():
    """Of two cells with a point each one stays; what the other holds still is in the outcome."""
    rows, cols, value = torch.tensor([0, 0]), torch.tensor([0, 10]), torch.randn(2, 3, **F64)
    pool = pool_of(keep_cells="area")
    outs = []
    for other in (value[1], -value[1]):
        points = PointSet.from_pixels(torch.stack([value[0], other]), rows, cols, (20, 20))
        outs.append(pool(points).feat)
    assert len(outs[0]) == 1 and not torch.allclose(*outs)


def test_centers_of_the_same_points_do_not_compete():
    """Both anchors have the same nearest points: all join the first, whatever rounding says."""
    pool, feat, seen = pool_of(), torch.randn(8, 3, **F64), []
    pool.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pool(PointSet(torch.zeros(8, 2, **F64), feat, torch.tensor([0, 8]), Cloud()))
    mean = feat[:4].mean(0)
    torch.testing.assert_close(seen[0], pool.value(torch.stack([(feat.sum(0) + mean) / 9, mean])))


def test_only_the_choice_is_not_trained():
    pool = ClusterPool(3, 6)
    assert {name for name, p in pool.named_parameters() if not p.requires_grad} == {"query.weight", "query.bias"}
    assert sum(p.numel() for p in pool.parameters()) == 9 * 18 + 6 + 2 * (18 + 6) + 2 * 6


def test_set_of_zeros():
    pool = pool_of()
    torch.nn.init.zeros_(pool.query.bias)
    points = PointSet.from_images(torch.zeros(1, 3, 6, 6, **F64))
    assert all(t.isfinite().all() for t in outcome(pool, points, torch.ones(9, 6, **F64)))


@pytest.mark.parametrize("windows, size", [(1, (7, 10)), (2, (8, 12))])
def test_compiles_without_a_break(windows, size):
    pool = pool_of(windows_per_side=windows)
    compiled = torch.compile(pool, fullgraph=True, backend="eager", dynamic=False)
    points = PointSet.from_images(torch.randn(2, 3, *size, **F64))
    torch.testing.assert_close(compiled(points).feat, pool(points).feat)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="keep_cells must be 'area' or 'occupied', got 'some'"):
        ClusterPool(3, 5, keep_cells="some")
    with pytest.raises(ValueError, match="windows_per_side must be at least 1, got 0"):
        ClusterPool(3, 5, windows_per_side=0)
    with pytest.raises(ValueError, match="pools of clouds have no windows"):
        pool_of(windows_per_side=2)(PointSet(torch.rand(8, 2, **F64), torch.rand(8, 3, **F64), torch.tensor([0, 8])))
