from __future__ import annotations

import pytest
import timm
import torch

import pointmix
from pointmix import PointSet

TINY = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), heads=2, head_dim=4, num_classes=5)


def count(name: str, **kwargs) -> int:
    return sum(p.numel() for p in pointmix.create_model(name, **kwargs).parameters())


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("coc_tiny", 5_570_584),
        ("coc_tiny2", 5_570_584),
        ("coc_tiny_plain", 5_570_584),
        ("coc_small", 14_657_024),
        ("coc_medium", 29_290_520),
        ("coc_base_dim64", 54_231_100),
        ("coc_base_dim96", 53_054_904),
    ],
)
def test_exact_parameters(name, parameters):
    assert count(name) == parameters


@pytest.mark.parametrize(
    "name, kwargs, parameters",
    [
        ("coc_tiny", dict(pyramid=True), 5_250_168),
        ("coc_small", dict(pyramid=True), 14_145_048),
        ("coc_medium", dict(pyramid=True), 28_778_544),
        ("coc_small", dict(pyramid=True, centers_per_side=(7, 7, 7, 7)), 14_145_048),
        ("coc_small", dict(cluster=False), 12_240_104),
        ("coc_small", dict(heads=1, head_dim=(16, 32, 96, 128)), 13_222_208),
        ("coc_tiny", dict(windows_per_side=(1, 1, 1, 1), centers_per_side=(4, 4, 2, 2)), 5_570_584),
        ("coc_tiny", dict(center_updates=2), 5_570_584),
        ("coc_tiny", dict(coords=False), 5_570_584 - 2 * 16 * 32),
        ("coc_tiny", dict(in_chans=4), 5_570_584 + 16 * 32),
        ("coc_tiny", dict(num_classes=0), 5_570_584 - 321_000),
        ("coc_tiny", dict(num_classes=10), 5_570_584 - 321 * 990),
    ],
)
def test_parameters_of_variations(name, kwargs, parameters):
    assert count(name, **kwargs) == parameters


@pytest.mark.parametrize(
    "name, windows_per_side, centers",
    [
        ("coc_tiny", (8, 4, 2, 1), (2, 2, 2, 2)),
        ("coc_tiny2", (7, 7, 1, 1), (4, 2, 7, 4)),
        ("coc_tiny_plain", (1, 1, 1, 1), (4, 4, 2, 2)),
        ("coc_base_dim96", (8, 4, 2, 1), (2, 2, 2, 2)),
    ],
)
def test_windows_and_centers(name, windows_per_side, centers):
    model = pointmix.create_model(name)
    assert (
        tuple(s.windows_per_side for s in model.stages) == windows_per_side
        and tuple(s.centers_per_side for s in model.stages) == centers
    )


def test_builds_without_memory():
    with torch.device("meta"):
        model = pointmix.create_model("coc_base_dim64")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == 54_231_100


def test_start_of_the_weights():
    model = pointmix.create_model("coc_tiny", depths=(1, 1, 1, 1))
    block = model.stages[2].blocks[0]
    for layer in (block.mlp.fc1, block.mlp.fc2):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05) and (layer.bias == 0).all()
    assert block.mlp.fc1.weight.mean().abs() < 1e-3
    bound = 196**-0.5  # the default of a 1x1 convolution
    assert 0.95 * bound < block.mixer.qv.weight.abs().max() <= bound and (block.mixer.qv.bias != 0).any()
    assert block.scale1.gamma.unique().tolist() == pytest.approx([1e-5])


def test_flags_reach_the_arithmetic():
    """Each switch of the paper's ablations changes the logits; the reference form does not."""
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    base = TINY | dict(layer_scale=1.0, windows_per_side=(2, 2, 1, 1))
    logits = {}
    for name, flags in {
        "default": {},
        "reference": dict(reference=True),
        "count": dict(denominator="count"),
        "dynamic": dict(center_updates=2),
        "exclusive": dict(coord_mode="exclusive"),
        "no cluster": dict(cluster=False),
        "no windows": dict(windows_per_side=(1, 1, 1, 1)),
        "more centers": dict(centers_per_side=(3, 3, 3, 3)),
    }.items():
        model = pointmix.create_model("coc_tiny", **base | flags).double().eval()
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(p.numel()))
        with torch.no_grad():
            logits[name] = model(images)
    torch.testing.assert_close(logits.pop("reference"), logits["default"])
    default = logits.pop("default")
    for name, other in logits.items():
        assert (other - default).abs().max() > 1e-6, name


def test_no_position_information():
    """Without coordinates a set of equal pixels looks the same wherever they are; with them it does not."""
    rows, cols = torch.tensor([0, 0, 4, 4]), torch.tensor([0, 4, 0, 4])
    value = torch.rand(4, 3)
    here, there = (PointSet.from_pixels(value, rows + d, cols + d, (64, 64)) for d in (0, 32))
    for coords in (False, True):
        model = pointmix.create_model(
            "coc_tiny", **TINY, coords=coords, windows_per_side=(1,) * 4, layer_scale=1.0
        ).eval()
        assert torch.allclose(model(here), model(there), atol=1e-6) != coords


def test_a_coarser_stem():
    model = pointmix.create_model("coc_tiny", **TINY, stem=(3, 1, 1))
    assert [f["reduction"] for f in model.feature_info] == [1, 2, 4, 8]
    assert model.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 20, 4, 4)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(heads=(2, 2)), r"heads has 2 values for 4 stages: \(2, 2\)"),
        (dict(dims=(8, 8)), r"dims has 2 values for 4 stages: \(8, 8\)"),
        (dict(windows_per_side=(8, 4, 2)), "windows_per_side has 3 values for 4 stages"),
        (dict(centers_per_side=(2,) * 5), "centers_per_side has 5 values for 4 stages"),
        (dict(windows_per_side=(0, 1, 1, 1)), "windows_per_side must be at least 1, got"),
        (dict(depths=(1, 0, 1, 1)), "depths must be at least 1, got"),
        (dict(coord_mode="middle"), "coord_mode must be one of inclusive, exclusive, got 'middle'"),
        (dict(global_pool="max"), "global_pool must be 'avg' or '', got 'max'"),
        (dict(denominator="sum"), "denominator must be one of"),
        (dict(keep_cells="few"), "keep_cells must be 'area' or 'occupied', got 'few'"),
        (dict(stem=(2, 4, 0)), "kernel 2, stride 4"),
        (dict(pretrained=True), "coc_tiny: no weights are hosted.*load_reference"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model("coc_tiny", **TINY | kwargs)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(2, 4, 32, 32), "the input has 4 channels, the model takes 3"),
        (torch.rand(32, 32), r"expected images \(B, C, H, W\) or clouds \(B, N, D\), got \(32, 32\)"),
        (PointSet.from_images(torch.rand(1, 1, 32, 32)), "the input has 1 channels, the model takes 3"),
    ],
    ids=["channels", "no batch", "points"],
)
def test_bad_input_is_named(x, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model("coc_tiny", **TINY)(x)


def test_unknown_model():
    with pytest.raises(ValueError, match="no model 'coc_huge'; ours are coc_base_dim64, .*coc_tiny_plain"):
        pointmix.create_model("coc_huge")


def test_names_lead_to_timm_and_back():
    assert pointmix.list_models("coc_*") == sorted(
        "coc_tiny coc_tiny2 coc_tiny_plain coc_small coc_medium coc_base_dim64 coc_base_dim96".split()
    )
    assert pointmix.list_models("coc_tiny*") == ["coc_tiny", "coc_tiny2", "coc_tiny_plain"]
    assert pointmix.list_models("resnet*") == []
    assert set(pointmix.list_models("coc_*")) <= set(timm.list_models("coc_*"))
    assert isinstance(timm.create_model("coc_tiny", **TINY), type(pointmix.create_model("coc_tiny", **TINY)))
    assert type(pointmix.create_model("resnet10t", num_classes=3)).__name__ == "ResNet"
