from __future__ import annotations

import copy
import math

import pytest
import timm
import torch

import pointmix
from pointmix import PointSet
from pointmix.models import pointmlp as family
from pointmix.models.weights import reference_name

SMALL = dict(dim=8, expansion=(2, 1), pre_blocks=(1, 2), pos_blocks=(1, 1), neighbors=6, num_classes=5)
F64 = dict(dtype=torch.float64)


def model_of(name: str = "pointmlp_coc", **kwargs) -> torch.nn.Module:
    """A small model in double precision whose normalizations do something."""
    torch.manual_seed(1)
    model = pointmix.create_model(name, **SMALL | kwargs).double().eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and (".norm." in key or key.endswith(("alpha", "beta"))):
            value.add_(0.2 * torch.randn_like(value))
    return model


def clouds(*sizes: int, channels: int = 0) -> PointSet:
    return PointSet.cat(
        [PointSet.from_points(torch.randn(n, 3, **F64), torch.randn(n, channels, **F64)) for n in sizes]
    )


@pytest.mark.parametrize(
    "name, kwargs, parameters",
    [
        ("pointmlp", dict(num_classes=15), 13_232_079),
        ("pointmlp", {}, 13_238_504),
        ("pointmlp_elite", dict(num_classes=15), 709_807),
        ("pointmlp_elite", {}, 716_232),
        ("pointmlp_coc", dict(num_classes=15), 15_326_815),
        ("pointmlp_coc", {}, 15_333_240),
        ("pointmlp_coc", dict(num_classes=15, coc_head_dim="min"), 13_605_087),
        ("pointmlp_coc", dict(coc_head_dim="min"), 13_611_512),
        ("pointmlp", dict(in_chans=3), 13_238_504 + 3 * 64),
        ("pointmlp", dict(num_classes=0), 13_238_504 - 257 * 40),
    ],
)
def test_exact_parameters(name, kwargs, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in pointmix.create_model(name, **kwargs).parameters()) == parameters


@pytest.mark.parametrize("name", ["pointmlp", "pointmlp_coc"])
@pytest.mark.parametrize("sizes", [(64, 64), (50, 1, 7, 3)], ids=str)
def test_reference_form_agrees(name, sizes):
    model, points = model_of(name, in_chans=2), clouds(*sizes, channels=2)
    reference = model_of(name, in_chans=2, reference=True)
    for train in (False, True):
        outs = [m.train(train)(points) for m in (model, reference)]
        probe = torch.randn_like(outs[0])
        torch.testing.assert_close(outs[0], outs[1], rtol=1e-9, atol=1e-9)
        if not train:
            gradients = [
                torch.autograd.grad((out * probe).sum(), list(m.parameters()))
                for out, m in zip(outs, (model, reference), strict=True)
            ]
            for ours, theirs in zip(*gradients, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        for (key, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=key)
        model.head_drop.p = reference.head_drop.p = 0.0


@pytest.mark.parametrize("chunk", [1, 100, 10**9])
def test_chunks_change_nothing(chunk, monkeypatch):
    model, points = model_of(), clouds(50, 1, 7)
    expected = model(points)  # with gradients: all at once
    monkeypatch.setattr(family, "CPU_CHUNK", chunk)
    before = points.pos.clone()
    with torch.no_grad():
        torch.testing.assert_close(model(points), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(points.pos, before)


def test_anchors_of_each_stage():
    points, found = model_of().forward_intermediates(clouds(50, 1, 7))
    assert [p.ptr.diff().tolist() for p in found] == [[25, 1, 3], [12, 1, 1]]
    assert [p.feat.shape[1] for p in found] == [16, 16] and points is found[-1]


def test_sampling_runs_once(monkeypatch):
    calls = []
    original = pointmix.nn.grouper.farthest_point_sampling
    monkeypatch.setattr(
        pointmix.nn.grouper, "farthest_point_sampling", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    model_of()(clouds(50, 7))
    assert len(calls) == 1


def test_features_are_input():
    points = clouds(30, channels=2)
    model = model_of(in_chans=2)
    assert not torch.allclose(model(points), model(points.with_feat(points.feat + 1)))
    assert not torch.allclose(model(points), model(PointSet(points.pos * 2, points.feat, points.ptr)))


def test_tensors_and_images_as_clouds():
    xyz = torch.randn(2, 30, 3, **F64)
    model = model_of()
    expected = model(PointSet.cat([PointSet.from_points(x) for x in xyz]))
    torch.testing.assert_close(model(xyz), expected)
    image = torch.rand(1, 3, 6, 5, **F64)
    pixels = model_of(in_chans=3, coord_dims=2)
    assert torch.equal(pixels(image), pixels(PointSet.from_images(image).as_cloud()))


def test_canonical_order_and_the_given_one():
    points = clouds(60)
    moved = points.subset(torch.randperm(60))
    assert torch.equal(model_of()(moved), model_of()(points))
    given = model_of(order="given")
    assert not torch.allclose(given(moved), given(points), atol=1e-6)
    first = points.subset(torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(59)]))
    torch.testing.assert_close(given(first), given(points))  # only the first point counts


def test_checkpointing_moves_the_running_means_once():
    points, results = clouds(40, 9), []
    for enable in (False, True):
        model = model_of().train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(5)
        gradients = torch.autograd.grad(model(points).square().sum(), list(model.parameters()))
        results.append([*gradients, *model.buffers()])
    for kept, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_dropout_is_a_half_by_default():
    assert pointmix.create_model("pointmlp_elite").head_drop.p == 0.5
    assert pointmix.create_model("pointmlp_elite", drop_rate=0.1).head_drop.p == 0.1


def test_classes():
    model = model_of(num_classes=0)
    assert model(clouds(30)).shape == (1, 256) and isinstance(model.get_classifier(), torch.nn.Identity)
    model.reset_classifier(7)
    assert model(clouds(30)).shape == (1, 7) and model.num_classes == model.get_classifier().out_features == 7
    features = model.forward_features(clouds(30))
    assert features.feat.shape == (7, 16) and model.num_features == 16
    assert model.forward_head(features, pre_logits=True).shape == (1, 256)


def test_frozen_normalization_in_training():
    """Fine-tuning with norms in evaluation: the running means are used and do not move."""
    model, points = model_of(drop_rate=0.0), clouds(30, 9)
    expected = model(points)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    before = copy.deepcopy(dict(model.named_buffers()))
    torch.testing.assert_close(model(points), expected)
    assert all(torch.equal(value, before[key]) for key, value in model.named_buffers())


def test_all_points_equal_is_no_noise():
    """Nothing differs, so nothing is divided by next to nothing: single precision gives what double does."""
    points = PointSet.from_points(torch.full((64, 3), 0.3).double())
    model = model_of()
    expected = model(points)
    assert expected.isfinite().all()
    torch.testing.assert_close(model.float()(points.to(torch.float32)).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(pre_blocks=(1,)), r"pre_blocks has 1 values for 2 stages: \(1,\)"),
        (dict(pos_blocks=(1, 1, 1)), "pos_blocks has 3 values for 2 stages"),
        (dict(order="sorted"), "order must be one of canonical, given, got 'sorted'"),
        (dict(coc_head_dim="mean"), "coc_head_dim must be one of None, max, min, got 'mean'"),
        (dict(neighbors=0), "neighbors must be at least 1, got 0"),
        (dict(pretrained=True), "pointmlp_coc: no weights are hosted.*load_reference"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model("pointmlp_coc", **SMALL | kwargs)
    with pytest.raises(ValueError, match="global_pool must be 'max', got 'avg'"):
        model_of().reset_classifier(3, "avg")


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.rand(2, 3, 64), "positions have 64 dimensions, the model takes 3"),
        (torch.rand(2, 3, 8, 8), "the input has 3 channels, the model takes 0"),
        (torch.rand(8, 3), r"expected images \(B, C, H, W\) or clouds \(B, N, D\), got \(8, 3\)"),
        (PointSet.from_points(torch.rand(8, 3), torch.rand(8, 1)), "the input has 1 channels, the model takes 0"),
        (torch.full((1, 8, 3), math.nan), "positions must be finite.* point 0"),
    ],
    ids=["channels first", "images", "no batch", "features", "nan"],
)
def test_bad_input_is_named(x, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model("pointmlp_coc", **SMALL)(x)


def test_known_to_timm():
    assert pointmix.list_models("pointmlp*") == ["pointmlp", "pointmlp_coc", "pointmlp_elite"]
    model = timm.create_model("pointmlp_elite", num_classes=3)
    assert model.default_cfg.get("input_size") is None and model.default_cfg["classifier"] == "head"
    assert model.default_cfg["first_conv"] in dict(model.named_modules())
    assert [f["num_chs"] for f in model.feature_info] == [64, 128, 256, 256]
    assert [f["reduction"] for f in model.feature_info] == [2, 4, 8, 16]


# ---- the authors' keys ------------------------------------------------------------------------------------------

KEYS = {
    "embedding.net.0.weight": "stem.linear.weight",
    "embedding.net.1.running_mean": "stem.norm.running_mean",
    "local_grouper_list.2.affine_alpha": "stages.2.alpha",
    "pre_blocks_list.1.transfer.net.0.weight": "stages.1.transfer.linear.weight",
    "pre_blocks_list.1.transfer.net.1.bias": "stages.1.transfer.norm.bias",
    "pre_blocks_list.3.operation.0.fc1.weight": "stages.3.pre.0.query.weight",
    "pre_blocks_list.3.operation.2.fc_v.bias": "stages.3.pre.2.value.bias",
    "pre_blocks_list.3.operation.2.fc2.bias": "stages.3.pre.2.proj.bias",
    "pre_blocks_list.3.operation.2.sim_beta": "stages.3.pre.2.beta",
    "pre_blocks_list.0.operation.1.net2.0.weight": "stages.0.pre.1.layer2.linear.weight",
    "pos_blocks_list.0.operation.1.net1.1.num_batches_tracked": "stages.0.pos.1.layer1.norm.num_batches_tracked",
    "classifier.0.weight": "mlp.0.linear.weight",
    "classifier.5.running_var": "mlp.1.norm.running_var",
    "classifier.8.bias": "head.bias",
}


@pytest.mark.parametrize("theirs, ours", KEYS.items())
def test_names_of_the_authors(theirs, ours):
    assert reference_name(theirs) == (ours, None)
    assert ours in pointmix.create_model("pointmlp_coc").state_dict()


def test_a_checkpoint_of_the_authors(tmp_path):
    """As their trainer saves it: under `net`, from DataParallel, maps as 1x1 convolutions, affine (1, 1, 1, C)."""
    model, theirs = model_of("pointmlp"), {}
    back = {"stem.": "embedding.net.", "linear.": "0.", "norm.": "1.", ".layer": ".net", ".transfer.": ".transfer.net."}
    for key, value in model.state_dict().items():
        value = torch.randn_like(value) if value.is_floating_point() else value + 3
        if key.startswith(("mlp.", "head.")):
            name = key.replace("head.", "classifier.8.")
            for i in (0, 1):
                name = name.replace(f"mlp.{i}.linear", f"classifier.{4 * i}")
                name = name.replace(f"mlp.{i}.norm", f"classifier.{4 * i + 1}")
        elif key.endswith((".alpha", ".beta")):
            name, value = f"local_grouper_list.{key[7]}.affine_{key.split('.')[-1]}", value[None, None, None]
        else:
            name = key
            for new, old in back.items():
                name = name.replace(new, old)
            name = name.replace(f"stages.{name[7]}.transfer", f"pre_blocks_list.{name[7]}.transfer")
            for part in ("pre", "pos"):
                name = name.replace(f"stages.{name[7]}.{part}.", f"{part}_blocks_list.{name[7]}.operation.")
            value = value[..., None] if value.ndim == 2 else value
        theirs[f"module.{name}"] = value
    torch.save({"net": theirs, "epoch": 3, "acc": 0.5}, tmp_path / "best.pth")
    pointmix.load_reference(model, tmp_path / "best.pth")
    state = model.state_dict()
    for key, value in theirs.items():
        ours = state[reference_name(key.removeprefix("module."))[0]]
        assert torch.equal(ours, value.reshape(ours.shape)), key
    del theirs["module.local_grouper_list.1.affine_beta"]
    with pytest.raises(ValueError, match="does not fit PointMLP: nothing for stages.1.beta"):
        pointmix.load_reference(model, theirs)


def test_features_only():
    kwargs = dict(dim=4, neighbors=4)
    model = timm.create_model("pointmlp_elite", features_only=True, out_indices=(0, 2), **kwargs).eval()
    clouds = torch.randn(2, 40, 3)
    found = model(clouds)
    assert [len(points.feat) for points in found] == [40, 10] and model.feature_info.channels() == [8, 32]
    whole = pointmix.create_model("pointmlp_elite", **kwargs).eval()
    whole.load_state_dict(model.model.state_dict(), strict=False)
    for ours, theirs in zip(found, whole.forward_intermediates(clouds, [0, 2], intermediates_only=True), strict=True):
        assert torch.equal(ours.feat, theirs.feat)
