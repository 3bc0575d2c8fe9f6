"""The laws on free points, for every model: its windows, centers, heads and neighbors, narrow, one block a stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from safetensors.torch import load, save
from torch.utils.flop_counter import FlopCounterMode

import pointmix
from pointmix import PointSet

MODELS = pointmix.list_models()
IMAGE_MODELS = [name for name in MODELS if timm.get_pretrained_cfg(name).input_size]
F64 = dict(dtype=torch.float64)
FAMILIES = {
    "coc": dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), layer_scale=1.0),
    "fec": dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), layer_scale=1.0),
    "hcformer": dict(
        depths=(1, 1, 1, 1), dims=(16, 24, 32, 48), layer_scale=1.0, coords=True, rel_pos="offset",
        stem=(4, 2, 0), windows_per_side=(2, 2, 1, 1),  # so that windows of so few points hold more than one
    ),
    "pointmlp": dict(dim=16, pre_blocks=(1, 1, 1, 1), pos_blocks=(1, 1, 1, 1)),
}  # fmt: skip


def model_of(name: str, **kwargs) -> torch.nn.Module:
    """A model whose branches all matter, with similarities and statistics that are neither flat nor the start's."""
    torch.manual_seed(1)
    settings = FAMILIES[name.split("_")[0]] | dict(in_chans=2, coord_dims=3, num_classes=10) | kwargs
    model = pointmix.create_model(name, **settings).eval()
    with torch.no_grad():
        for key, p in model.state_dict().items():
            if key.endswith("running_var"):
                p.uniform_(0.5, 1.5)
            elif key.endswith(("mixer.alpha", "mixer.alpha_patch", "mixer.alpha_window", "pre.0.alpha")):
                p.fill_(2.0)
            elif p.is_floating_point() and (p.ndim == 1 or ".norm" in key):
                p.add_(0.1 * torch.randn_like(p))
    return model


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {key: p for key, p in model.named_parameters() if p.requires_grad}


def cloud(n: int, *, equal: bool = False, lattice: bool = False) -> PointSet:
    """Points in general, all in one place, or on a lattice, where distances are equal and some points coincide."""
    pos = torch.randn(n, 3, **F64)
    pos = pos[:1].expand(n, -1) if equal else pos.mul(2).round() if lattice else pos
    feat = torch.randn(n, 2, **F64)
    return PointSet.from_points(pos, feat[:1].expand(n, -1) if equal else feat)


def mixed_batch() -> PointSet:
    """Many and few points, one point, points in one place, ties."""
    sets = [cloud(120), cloud(1), cloud(9), cloud(30, equal=True), cloud(60, lattice=True), cloud(2)]
    return PointSet.cat(sets)


def shuffled(points: PointSet) -> PointSet:
    sets = [part.subset(torch.randperm(len(part.feat))) for part in points.unbind()]
    assert not torch.equal(sets[0].pos, points.unbind()[0].pos)
    return PointSet(*(torch.cat([getattr(s, key) for s in sets]) for key in ("pos", "feat")), points.ptr)


# ---- the laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_order_of_points_does_not_matter(name):
    model, points = model_of(name).double(), mixed_batch()
    with torch.no_grad():
        torch.testing.assert_close(model(shuffled(points)), model(points), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_other_sets_do_not_matter(name):
    model, points = model_of(name).double(), mixed_batch()
    even = PointSet.cat([cloud(40) for _ in range(3)])
    with torch.no_grad():
        for batch in (points, even):
            together = model(batch)
            alone = torch.cat([model(part) for part in batch.unbind()])
            torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
            backwards = model(PointSet.cat(batch.unbind()[::-1])).flip(0)
            torch.testing.assert_close(together, backwards, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_batch_are_sums(name):
    model, points = model_of(name).double(), mixed_batch()
    probe, parameters = torch.randn(points.num_sets, 10, **F64), list(trained(model).values())
    together = torch.autograd.grad((model(points) * probe).sum(), parameters)
    alone = [
        torch.autograd.grad((model(part) * row).sum(), parameters)
        for part, row in zip(points.unbind(), probe, strict=True)
    ]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_nan_stays_in_its_set(name):
    model, points = model_of(name).double(), mixed_batch()
    feat = points.feat.clone()
    feat[points.ptr[2]] = float("nan")
    with torch.no_grad():
        clean, dirty = model(points), model(points.with_feat(feat))
    others = torch.arange(points.num_sets) != 2
    assert dirty[2].isnan().all()
    torch.testing.assert_close(dirty[others], clean[others], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_few_points_all_matter(name):
    """Fewer points than neighbors: none is lost on the way."""
    model = model_of(name).double()
    for n in (1, 2, 3, 7):
        points = cloud(n)
        feat = points.feat.requires_grad_()
        gradient = torch.autograd.grad(model(points.with_feat(feat)).square().sum(), feat)[0]
        assert gradient.isfinite().all() and (gradient != 0).any(1).all()


def operations(run: Callable[[], torch.Tensor]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_operations_follow_the_points(name):
    # stems thin out by four, so they get more points; few centers, as late stages have few points
    settings = dict(
        stem=(4, 2, 0), windows_per_side=(4, 2, 1, 1), centers_per_side=(2, 2, 2, 2), dims=(64, 128, 320, 512)
    )
    model = model_of(name, **settings if name in IMAGE_MODELS else {})
    most = 4096 if name in IMAGE_MODELS else 1024
    full, part = (operations(lambda n=n: model(cloud(n).to(torch.float32))) for n in (most, most // 4))
    assert 0.2 * full < part < 0.32 * full


# ---- pixels as a cloud ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_pixels_as_a_cloud(name):
    model = model_of(name, in_chans=3, coord_dims=2, layout="cloud").double()
    points = PointSet.from_images(torch.randn(2, 3, 20, 31, **F64))
    with torch.no_grad():
        expected = model(points)
        torch.testing.assert_close(model(points.as_sparse()), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(shuffled(points.as_cloud())), expected, rtol=1e-9, atol=1e-9)
        given = model_of(name, in_chans=3, coord_dims=2).double()
        torch.testing.assert_close(given(points.as_cloud()), expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(given(points), expected, atol=1e-3)


# ---- what every model promises to torch and to its trainer ------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    """In training, batch normalization takes out what is the same for all rows: there it needs only be finite."""
    points = PointSet.cat([cloud(400), cloud(40), cloud(9)]).to(torch.float32)
    for train in (False, True):
        model = model_of(name).train(train)
        parameters = trained(model)
        untrained = {key for key, _ in model.named_parameters()} - set(parameters)
        assert all(".reducer.query." in key for key in untrained) and bool(untrained) == name.startswith("fec_")
        gradients = torch.autograd.grad(model(points).square().sum(), list(parameters.values()))
        for key, gradient in zip(parameters, gradients, strict=True):
            single = key.startswith("stages.2.") and key.endswith(".alpha_window")  # one center, which all windows join
            assert gradient.isfinite().all() and (train or single or gradient.abs().max() > 0), key


@pytest.mark.parametrize("name", MODELS)
def test_finite_in_every_precision(name):
    model, points = model_of(name), mixed_batch().to(torch.float32)
    with torch.no_grad():
        full = model(points)
        assert full.shape == (points.num_sets, 10) and full.dtype == torch.float32 and full.isfinite().all()
        for scale in (0.0, 1e4):
            extreme = PointSet(points.pos * scale, points.feat * scale, points.ptr)
            assert model(extreme).isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(points)
        assert mixed.dtype == torch.bfloat16 and mixed.isfinite().all()
        assert (mixed.float() - full)[0].abs().median() < 0.3 * full[0].std()
        half = model.bfloat16()(points.to(torch.bfloat16))
        assert half.dtype == torch.bfloat16 and half.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_under_autocast(name):
    model, points = model_of(name).train(), mixed_batch().to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(points).float().square().mean()
    gradients = torch.autograd.grad(loss, list(trained(model).values()))
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_round_trip(name):
    model, points = model_of(name), cloud(40).to(torch.float32)
    other = pointmix.create_model(name, **FAMILIES[name.split("_")[0]], in_chans=2, coord_dims=3, num_classes=10).eval()
    with torch.no_grad():
        before = model(points)
        assert not torch.equal(other(points), before)
        other.load_state_dict(load(save(model.state_dict())))
        assert torch.equal(other(points), before)


@pytest.mark.parametrize("name", MODELS)
def test_checkpointing_changes_nothing(name):
    points, results = mixed_batch().to(torch.float32), []
    for enable in (False, True):
        model = model_of(name).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(5)
        gradients = torch.autograd.grad(model(points).square().sum(), list(trained(model).values()))
        results.append([*gradients, *model.buffers()])
    for kept, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, kept)


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_is_deterministic_and_leaves_the_input_alone(name):
    model, points = model_of(name), mixed_batch().to(torch.float32)
    pos, feat = points.pos.clone(), points.feat.clone()
    with torch.inference_mode():
        assert torch.equal(model(points), model(points))
    assert torch.equal(points.pos, pos) and torch.equal(points.feat, feat)


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_dimensions(name):
    model = model_of(name, num_classes=0, in_chans=0, coord_dims=4)
    x = torch.randn(2, 30, 4)
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    assert model(x).shape == (2, model.head_hidden_size)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7) and model.num_classes == 7 and model.get_classifier().out_features == 7
    features = model.forward_features(x)
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert features.feat.shape[1] == model.num_features == model.feature_info[-1]["num_chs"]


@pytest.mark.parametrize("name", MODELS)
def test_wrong_input_is_named(name):
    model = model_of(name)
    with pytest.raises(ValueError, match="the input has 0 channels, the model takes 2"):
        model(torch.randn(2, 30, 3))
    with pytest.raises(ValueError, match="positions have 2 dimensions, the model takes 3"):
        model(PointSet.from_points(torch.randn(30, 2), torch.randn(30, 2)))
