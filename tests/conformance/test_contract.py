"""What every model of images promises to timm, to torch and to its trainer."""

from __future__ import annotations

import copy
import io

import pytest
import timm
import torch
from safetensors.torch import load, save

import pointmix
from pointmix import PointSet

MODELS = [name for name in pointmix.list_models() if timm.get_pretrained_cfg(name).input_size]  # that take images
DISTINCT = ("coc_tiny", "coc_tiny2", "coc_tiny_plain", "fec_small", "hcformer_tiny")  # others differ in width and depth
# a choice among centers has no gradient, and what decides it there decides nothing else
UNTRAINED = {"fec": {f"stages.{i}.reducer.query.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}}
SHALLOW = dict(depths=(1, 1, 1, 1), layer_scale=1.0, num_classes=10)
ONE_STAGE = SHALLOW | dict(
    depths=(1,), dims=(16,), mlp_ratios=(4,), heads=(2,), head_dim=(4,), windows_per_side=(2,), centers_per_side=(2,)
)  # fmt: skip
TWO_STAGES = SHALLOW | dict(
    depths=(1, 1), dims=(16, 32), mlp_ratios=(4, 4), heads=(2, 4), head_dim=(8, 8), windows_per_side=(4, 2),
    centers_per_side=(2, 2),
)  # fmt: skip
TWO_LEVELS = TWO_STAGES | dict(global_centers_per_side=(2, None), table_size=(16, 8))  # HCFormer's upper level, or none


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    """The model as it is, but for a layer scale at which every branch matters, and for no more than two blocks a stage
    of large models. Tests leave it as they found it."""
    torch.manual_seed(0)
    return pointmix.create_model(request.param, **depth(request.param), layer_scale=1.0).eval()


def depth(name: str) -> dict[str, tuple[int, ...]]:
    return {} if name in DISTINCT else dict(depths=(2, 2, 2, 2))


def as_registered(name: str, **kwargs) -> torch.nn.Module:
    """The model of full depth, without values."""
    with torch.device("meta"):
        return pointmix.create_model(name, **kwargs)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64)


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def masked() -> PointSet:
    masks = torch.rand(2, 64, 64) < 0.3
    masks[:, 0, 0] = True
    return PointSet.from_images(torch.randn(2, 3, 64, 64), masks)


def unused(model: torch.nn.Module) -> set[str]:
    """Parameters that exist for the published counts and cannot matter: what weighs one center against no other."""
    single = [
        f"stages.{i}." for i, stage in enumerate(model.stages) if stage.plan_options.get("global_centers_per_side") == 1
    ]
    ends = (".alpha_window", ".bias_window")
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(single)) and name.endswith(ends)}


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_trained(name):
    frozen = {key for key, parameter in as_registered(name).named_parameters() if not parameter.requires_grad}
    assert frozen == UNTRAINED.get(name.split("_")[0], set())


@pytest.mark.parametrize("kind", ["images", "masked"])
def test_every_parameter_gets_a_gradient(model, images, kind):
    model(images if kind == "images" else masked()).square().sum().backward()
    try:
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all() and (parameter.grad.abs().max() > 0) != (name in unused(model)), name
    finally:
        model.zero_grad()


@pytest.mark.parametrize("kind", ["images", "masked"])
def test_finite_in_every_precision(model, images, kind):
    x = images if kind == "images" else masked()
    with torch.no_grad():
        full = model(x)
        assert full.shape == (2, 1000) and full.dtype == torch.float32 and full.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x)
    assert mixed.dtype == torch.bfloat16 and mixed.isfinite().all()
    # a hard assignment may flip between two near centers: judge by the median
    assert (mixed.float() - full).abs().median() < 0.3 * full.std()


def test_gradients_are_finite_under_autocast(model, images):
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(images).float().square().mean()
    gradients = torch.autograd.grad(loss, trained(model))
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)


@pytest.mark.parametrize("name", MODELS)
def test_runs_in_bfloat16_and_on_extreme_values(name):
    model = pointmix.create_model(name, **SHALLOW).eval()
    with torch.no_grad():
        for x in (torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 255.0), 1e4 * torch.randn(1, 3, 64, 64)):
            assert model(x).isfinite().all()
        model.bfloat16()
        x = torch.randn(1, 3, 64, 64)
        for points in (PointSet.from_images(x), PointSet.from_images(x).as_sparse()):
            out = model(points.to(torch.bfloat16))
            assert out.dtype == torch.bfloat16 and out.isfinite().all()


def test_state_dict_round_trip(model, images):
    name = model.default_cfg["architecture"]
    other = pointmix.create_model(name, **depth(name), layer_scale=1.0).eval()
    with torch.no_grad():
        before = model(images)
        assert not torch.equal(other(images), before)
        other.load_state_dict(load(save(model.state_dict())))
        assert torch.equal(other(images), before)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(other(images), before)
        assert torch.equal(copy.deepcopy(model)(images), before)


@pytest.mark.parametrize("name", MODELS)
def test_checkpointing_changes_no_gradient(name, images):
    model = pointmix.create_model(name, **SHALLOW | dict(depths=(2, 1, 2, 1)), drop_path_rate=0.2).train()
    for x in (images, masked()):
        gradients = []
        for enable in (False, True):
            model.set_grad_checkpointing(enable)
            torch.manual_seed(5)  # the same sets are dropped
            gradients.append(torch.autograd.grad(model(x).square().sum(), trained(model)))
        for reference, recomputed in zip(*gradients, strict=True):
            torch.testing.assert_close(recomputed, reference)


@pytest.mark.parametrize("name", MODELS)
def test_features_only_shapes_and_channels(name):
    features = timm.create_model(name, features_only=True, depths=(1, 1, 1, 1)).eval()
    dims = [info["num_chs"] for info in as_registered(name).feature_info]
    assert features.feature_info.channels() == dims and features.feature_info.reduction() == [4, 8, 16, 32]
    with torch.no_grad():
        shapes = [tuple(m.shape) for m in features(torch.randn(1, 3, 64, 96))]
    assert shapes == [(1, d, 64 // s, 96 // s) for d, s in zip(dims, (4, 8, 16, 32), strict=True)]


def test_intermediates_fit_forward(model, images):
    with torch.no_grad():
        final, maps = model.forward_intermediates(images)
        assert len(maps) == 4 and maps[-1].shape == final.shape == (2, model.num_features, 2, 2)
        torch.testing.assert_close(model.forward_head(final), model(images))
        torch.testing.assert_close(model.forward_features(images), final)


@pytest.mark.parametrize("name", MODELS)
def test_classes_and_channels(name):
    model = pointmix.create_model(name, depths=(1, 1, 1, 1), num_classes=0, in_chans=1).eval()
    assert isinstance(model.get_classifier(), torch.nn.Identity) and model.num_classes == 0
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, model.num_features)
    model.reset_classifier(7)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7) and model.num_classes == 7
    assert model.get_classifier().out_features == 7


@pytest.mark.parametrize("name", MODELS)
def test_drop_path_is_spread_linearly(name):
    rates = [block.drop_path.rate for stage in as_registered(name, drop_path_rate=0.1).stages for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.arange(len(rates)) * 0.1 / (len(rates) - 1))


def test_evaluation_is_deterministic_and_leaves_the_input_alone(model, images):
    before = images.clone()
    with torch.inference_mode():
        assert torch.equal(model(images), model(images))
    assert torch.equal(images, before)


def test_explains_every_block(model):
    found = model.explain(torch.rand(1, 3, 32, 32))
    assert len(found) == sum(len(stage.blocks) for stage in model.stages)
    modules = dict(model.named_modules())
    assert all(modules[a.name].mixer is not None for a in found)


@pytest.mark.parametrize("name", MODELS)
def test_is_known_to_timm(name):
    model = as_registered(name)
    assert timm.is_model(name) and name in timm.list_models()
    assert model.default_cfg["input_size"] == (3, 224, 224) and model.default_cfg["crop_pct"] == 0.9
    assert model.default_cfg["interpolation"] == "bicubic" and model.default_cfg["classifier"] == "head"
    assert model.default_cfg["first_conv"] in dict(model.named_modules())


# ---- compile and export -----------------------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    "name, size",
    [("coc_tiny", (64, 64)), ("coc_tiny2", (64, 64)), ("coc_tiny_plain", (37, 53)), ("hcformer_tiny", (37, 53))],
    ids=str,
)  # of FEC, and of each family at the other kind of size, two stages are compiled in test_batch_sizes.py
def test_compiles_without_a_break(name, size, fresh_compiler):
    model = pointmix.create_model(name, **SHALLOW).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    "name, size, kwargs",
    [("coc_tiny", (37, 53), TWO_STAGES), ("fec_small", (37, 53), TWO_STAGES), ("hcformer_tiny", (64, 64), TWO_LEVELS)],
)
def test_compiled_gradients(name, size, kwargs, fresh_compiler):
    model = pointmix.create_model(name, **kwargs).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    x = torch.randn(2, 3, *size)
    gradients = [torch.autograd.grad(m(x).square().sum(), trained(model)) for m in (model, compiled)]
    for reference, traced in zip(*gradients, strict=True):
        torch.testing.assert_close(traced, reference, rtol=1e-3, atol=1e-4)


def test_compiles_to_code(fresh_compiler):
    model = pointmix.create_model("coc_tiny", **ONE_STAGE).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out = torch.compile(model, fullgraph=True, dynamic=False)(x)
        torch.testing.assert_close(out, model(x), rtol=1e-4, atol=1e-4)
