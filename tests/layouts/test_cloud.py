"""Free points: which stay, what reducers read around them, and inputs of any kind."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import pointmix
from pointmix import PointSet
from pointmix.layouts.cloud import SAMPLING, Cloud, canonical_order
from pointmix.ops.sampling import farthest_point_sampling

DIMS = [1, 2, 3, 5]


def cloud(*sizes: int, dims: int = 3, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of random sets and their ptr."""
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return torch.randn(sum(sizes), dims, dtype=dtype), ptr


# ---- anchors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["fps", "random"])
@pytest.mark.parametrize("share", [1, 4, 16])
def test_one_point_of_share_is_an_anchor(sampling, share):
    pos, ptr = cloud(33, 1, 4, 100)
    anchor, new_ptr = Cloud(sampling).anchors(pos, ptr, share)
    assert new_ptr.diff().tolist() == [math.ceil(n / share) for n in (33, 1, 4, 100)]
    assert len(anchor.unique()) == len(anchor)
    for b in range(4):
        mine = anchor[new_ptr[b] : new_ptr[b + 1]]
        assert ((mine >= ptr[b]) & (mine < ptr[b + 1])).all()


@pytest.mark.parametrize("dims, more", [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (2, 1)])
def test_grid_anchors_are_about_as_many(dims, more):
    """Also on curves and surfaces, which leave most of the box empty."""
    pos, ptr = cloud(4000, 700, dims=dims)
    pos = torch.cat([pos, *[pos[:, :1].sin()] * more], dim=1)
    anchor, new_ptr = Cloud("grid").anchors(pos, ptr, 16)
    assert len(anchor.unique()) == len(anchor)
    for have, n in zip(new_ptr.diff().tolist(), (4000, 700), strict=True):
        assert 0.75 < have / (n / 16) < 1.33


def test_grid_anchors_of_a_lattice_are_one_a_cell():
    image = PointSet.from_image(torch.rand(1, 32, 32)).as_cloud()
    anchor, _ = Cloud("grid").anchors(image.pos, image.ptr, 16)
    cell = torch.stack([anchor // 32 // 4, anchor % 32 // 4], dim=1)
    assert len(anchor) == 64 == len(cell.unique(dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_points_of_a_nested_set_are_its_farthest(dtype):
    pos, ptr = cloud(300, 41, 5, dtype=dtype)
    pos[10:20] = pos[0]  # and ties
    pos[300:320] = pos[300:320].round()
    anchor, ptr = farthest_point_sampling(pos, ptr, ratio=0.5)
    pos = pos[anchor]
    for share in (4, 16):
        nested, nested_ptr = Cloud("fps", nested=True).anchors(pos, ptr, share)
        again, again_ptr = Cloud("fps").anchors(pos, ptr, share)
        assert torch.equal(nested, again) and torch.equal(nested_ptr, again_ptr)


def test_only_picked_points_are_nested():
    pos, ptr = cloud(64)
    weight, bias = torch.randn(2, 1, 3, 3, dtype=torch.float64), None
    feat = torch.randn(64, 1, dtype=torch.float64)

    def reduced(layout: Cloud, stride: int) -> Cloud:
        return layout.reduce(pos, feat, ptr, weight, bias, stride=stride, padding=1, keep_cells="area")[3]

    assert reduced(Cloud(), 2).nested and not reduced(Cloud(), 1).nested  # stride 1 keeps the order it is given
    assert reduced(Cloud("fps", nested=True), 1).nested
    assert not reduced(Cloud("random"), 2).nested and not reduced(Cloud("grid"), 2).nested


def test_a_stem_without_stride_keeps_the_whole_set_in_view():
    model = pointmix.create_model(
        "coc_tiny", dims=(4, 4), depths=(1, 1), mlp_ratios=(1, 1), windows_per_side=(1, 1), centers_per_side=(1, 1),
        heads=1, head_dim=4, stem=(3, 1, 1), in_chans=0, coord_dims=3, num_classes=0,
    )  # fmt: skip
    points = PointSet.from_batch(torch.rand(1, 256, 3))
    last = model.forward_features(points)
    assert len(last.pos) == 64
    assert (last.pos.amax(0) > 0.8).all() and (last.pos.amin(0) < 0.2).all()


# ---- the reducer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("sampling", SAMPLING)
def test_neighbors_are_concatenated_by_distance_and_mapped(dims, sampling):
    pos, ptr = cloud(40, 3, dims=dims)
    feat = torch.randn(43, 2, dtype=torch.float64)
    weight, bias = torch.randn(5, 2, 2, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    at, out, new_ptr, layout = Cloud(sampling).reduce(
        pos, feat, ptr, weight, bias, stride=2, padding=0, keep_cells="area"
    )
    assert layout.sampling == sampling and out.shape == (len(at), 5)
    for b in range(2):
        mine, own = pos[ptr[b] : ptr[b + 1]], feat[ptr[b] : ptr[b + 1]]
        for i in range(new_ptr[b], new_ptr[b + 1]):
            near = (mine - at[i]).square().sum(1).argsort()[:4]
            near = near[torch.arange(4) % len(near)]  # fewer than the kernel takes: again from the nearest
            expected = bias + sum(weight[:, :, j // 2, j % 2] @ own[n] for j, n in enumerate(near))
            torch.testing.assert_close(out[i], expected)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_pooled_features_are_means_of_the_nearest_points(sampling):
    pos, ptr = cloud(40, 3, 1)
    points = PointSet(pos, torch.randn(44, 2, dtype=torch.float64), ptr, Cloud(sampling))
    weight = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    coarse = PointSet(
        *points.layout.reduce(pos, points.feat, ptr, weight, None, stride=2, padding=1, keep_cells="area")
    )
    pooled, _ = points.layout.pool(points, coarse, 2)
    for part, out in zip(points.unbind(), coarse.with_feat(pooled).unbind(), strict=True):
        for at, mean in zip(out.pos, out.feat, strict=True):
            near = (part.pos - at).square().sum(1).argsort()[:4]  # each once, where there are fewer
            torch.testing.assert_close(mean, part.feat[near].mean(0))


def test_pooling_marks_centers_of_the_same_points():
    """The third anchor's nearest points are the first's, in another order; another set's are never the same."""
    pos = torch.tensor([0.0, 1.0, 1.9, 3.0, 10.0, 11.0, 12.0, 13.0] * 2)[:, None]
    points = PointSet(pos, torch.randn(16, 2), torch.tensor([0, 8, 16]), Cloud())
    coarse = PointSet(pos[[0, 4, 3, 8]], torch.randn(4, 2), torch.tensor([0, 3, 4]), Cloud())
    pooled, valid = points.layout.pool(points, coarse, 2)
    assert valid.tolist() == [True, True, False, True]
    torch.testing.assert_close(pooled[2], pooled[0])


def test_gradients_reach_every_neighbor():
    pos, ptr = cloud(12)
    feat = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    out = Cloud().reduce(pos, feat, ptr, weight, None, stride=2, padding=0, keep_cells="area")[1]
    out.square().sum().backward()
    assert (feat.grad.abs().sum(1) > 0).all() and (weight.grad.abs() > 0).all()


# ---- any input ------------------------------------------------------------------------------------------------------


def model_of(dims: int, sampling: str = "fps", in_chans: int = 2) -> torch.nn.Module:
    torch.manual_seed(1)
    return pointmix.create_model(
        "coc_tiny", dims=(8, 8, 8), depths=(1, 1, 1), mlp_ratios=(2, 2, 2), windows_per_side=(2, 2, 1),
        centers_per_side=(2, 2, 2), heads=2, head_dim=4, stem=(3, 2, 1), in_chans=in_chans,
        coord_dims=dims, num_classes=5, sampling=sampling, layer_scale=1.0,
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("dims", DIMS)
def test_neither_order_nor_batch_matters(dims, sampling):
    torch.manual_seed(0)
    sizes = [40, 1, 7, 90]
    sets = [PointSet.from_points(torch.randn(n, dims).double(), torch.randn(n, 2).double()) for n in sizes]
    lattice = torch.cartesian_prod(*[torch.arange(3.0)] * dims).view(-1, dims).double()  # many ties
    sets.append(PointSet.from_points(lattice, torch.randn(len(lattice), 2).double()))
    model = model_of(dims, sampling)
    with torch.no_grad():
        alone = torch.cat([model(s) for s in sets])
        turned = [s.subset(torch.arange(len(s.pos)).flip(0)) for s in sets]
        mixed = [s.subset(torch.randperm(len(s.pos))) for s in sets]
        for other in (sets, turned, mixed):
            torch.testing.assert_close(model(PointSet.cat(other)), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_points_in_one_place_with_different_features_have_an_order(sampling):
    pos = torch.randn(6, 3).double().repeat(8, 1)
    points = PointSet.from_points(pos, torch.randn(48, 2).double())
    model = model_of(3, sampling)
    mixed = points.subset(torch.randperm(48))
    with torch.no_grad():
        torch.testing.assert_close(model(mixed), model(points), rtol=1e-12, atol=1e-12)
    order, again = (canonical_order(p.pos, p.feat, p.ptr) for p in (points, mixed))
    assert torch.equal(points.pos[order], mixed.pos[again]) and torch.equal(points.feat[order], mixed.feat[again])


def test_the_canonical_order_is_by_position_then_features_within_a_set():
    pos = torch.tensor([[1.0, 0], [-0.0, 2], [0, 2], [0, 1], [5, 5], [-5, 5]])
    feat = torch.tensor([[0.0], [3], [-3], [0], [0], [0]])
    assert canonical_order(pos, feat, torch.tensor([0, 4, 6])).tolist() == [3, 2, 1, 0, 5, 4]
    assert canonical_order(pos[:0], feat[:0], torch.tensor([0, 0])).tolist() == []


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("points", [torch.rand(1, 3), torch.zeros(50, 3), torch.rand(3, 3), torch.eye(3)[[0] * 9]])
def test_sets_that_hardly_are_any(points, sampling):
    """One point, all points in one place, fewer points than neighbors, anchors or windows."""
    for places in (points, points.double() * 0 + 3):
        with torch.no_grad():
            out = model_of(3, sampling, in_chans=0)(PointSet.from_points(places.double()))
        assert out.shape == (1, 5) and torch.isfinite(out).all()
    plan = Cloud(sampling).plan(torch.zeros(50, 3), torch.tensor([0, 50]), 4, 2)
    assert plan.num_windows == 1 and plan.center_valid[0, 0]


@pytest.mark.parametrize("sampling", SAMPLING)
def test_positions_in_half_precision(sampling):
    pos, ptr = cloud(300, 20, dtype=torch.float32)
    pos = pos.bfloat16()
    layout = Cloud(sampling)
    assert torch.equal(layout.anchors(pos, ptr, 4)[0], layout.anchors(pos.float(), ptr, 4)[0])
    half, single = layout.plan(pos, ptr, 3, 2), layout.plan(pos.float(), ptr, 3, 2)
    assert torch.equal(half.order, single.order) and torch.equal(half.center_valid, single.center_valid)
    assert torch.equal(half.pool_weight > 0, single.pool_weight > 0)
    points = PointSet(pos, torch.randn(320, 2).bfloat16(), ptr)
    with torch.no_grad():
        assert torch.isfinite(model_of(3, sampling).bfloat16()(points)).all()


def test_unknown_sampling():
    with pytest.raises(ValueError, match="sampling must be one of .* got 'best'"):
        Cloud("best")


def test_a_cloud_has_no_image():
    with pytest.raises(ValueError, match="the points are not on a grid"):
        PointSet.from_points(torch.rand(4, 3)).to_image()


@pytest.mark.parametrize("sampling", SAMPLING)
def test_pixels_of_an_image_run_as_a_cloud(sampling):
    images = torch.rand(2, 3, 16, 16)
    model = pointmix.create_model(
        "coc_tiny", dims=(8, 8), depths=(1, 1), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2),
        heads=1, head_dim=4, layout="cloud", sampling=sampling, num_classes=3,
    ).eval()  # fmt: skip
    with torch.no_grad():
        out = model(images)
        torch.testing.assert_close(out, model(PointSet.from_images(images).as_cloud()))
    assert out.shape == (2, 3) and F.mse_loss(out[0], out[1]) > 0
