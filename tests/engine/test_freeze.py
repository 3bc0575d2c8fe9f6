"""Frozen parts: without gradients, without steps, with their statistics."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path

import pytest
import timm
import torch

import pointmix
from pointmix.engine.freeze import freeze
from pointmix.engine.loop import train_step
from pointmix.engine.run import build_run
from pointmix.engine.states import FOLDER, load_state
from pointmix.engine.train import build_accelerator, train
from pointmix.models.segmenter import create_segmenter
from pointmix.tasks.config import ModelConfig
from tests.engine.conftest import TINY

MLP = dict(dim=8, expansion=[2, 2], pre_blocks=[1, 1], pos_blocks=[1, 1], neighbors=4)


def names_frozen(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def coc(**kwargs):
    return pointmix.create_model("coc_tiny", num_classes=3, **(TINY | kwargs))


def all_but(model, *starts):
    return {name for name, _ in model.named_parameters() if not name.startswith(starts)}


@pytest.mark.parametrize(
    "part, starts",
    [
        ("stem", ["stages.0.reducer."]),
        ("1", ["stages.0."]),
        ("2", ["stages.0.", "stages.1."]),
        ("backbone", ["stages.", "norm."]),
        ("stages.1", ["stages.1."]),
        ("stages.1.reducer.weight", ["stages.1.reducer.weight"]),
        ("*.norm1.*", ["stages.0.blocks.0.norm1.", "stages.1.blocks.0.norm1."]),
    ],
)
def test_parts_of_a_classifier(part, starts):
    model = coc()
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(starts))}
    found = freeze(model, [part])
    assert names_frozen(model) == expected
    assert found.tensors == len(expected)
    assert found.values == sum(p.numel() for name, p in model.named_parameters() if name in expected)


def test_parts_of_other_networks():
    segmenter = create_segmenter("coc_tiny", num_classes=3, in_chans=3, **TINY)
    freeze(segmenter, ["backbone"])
    assert names_frozen(segmenter) == all_but(segmenter, "head.")
    segmenter = create_segmenter("coc_tiny", num_classes=3, in_chans=3, **TINY)
    freeze(segmenter, ["1"])
    assert names_frozen(segmenter) == all_but(segmenter, "head.", "backbone.stages.1.", "backbone.norm.")
    resnet = timm.create_model("resnet10t", num_classes=3)
    freeze(resnet, ["stem", "layer1"])
    assert names_frozen(resnet) == all_but(resnet, "layer2", "layer3", "layer4", "fc.")
    resnet = timm.create_model("resnet10t", num_classes=3)
    freeze(resnet, ["backbone"])
    assert names_frozen(resnet) == all_but(resnet, "fc.")
    segmenter = create_segmenter("convnext_atto", num_classes=3)
    freeze(segmenter, ["1"])
    stem = {name for name, _ in segmenter.named_parameters() if name.startswith("backbone.body.st")}
    assert names_frozen(segmenter) == {name for name in stem if "stem_" in name or "stages_0." in name}
    mlp = pointmix.create_model("pointmlp", num_classes=3, in_chans=0, **MLP)
    freeze(mlp, ["1"])
    assert names_frozen(mlp) == all_but(mlp, "stages.1.", "mlp.", "head.")


def test_several_parts_are_named_and_counted():
    found = freeze(coc(), ["stem", "stages.1"])
    assert str(found).endswith(f"of them frozen in {found.tensors} tensors (stages.0.reducer, stages.1)")
    assert freeze(coc(), ["backbone"]).parts == ["stages", "norm"]
    assert freeze(coc(), ["1"]).parts == ["stages.0"]


@pytest.mark.parametrize(
    "parts, message",
    [
        (["stage.0"], r"^model.freeze 'stage.0' is no part of the network; did you mean stages.0 or .*\?$"),
        (["backbon"], "did you mean backbone"),
        (
            ["xyz"],
            "is no part of the network; expected backbone, stem, a number of stages, or a name below stages, norm",
        ),
        (["0"], "model.freeze '0': expected a number of stages from 1 to 2"),
        (["3"], "model.freeze '3': expected a number of stages from 1 to 2"),
        (["*"], "model.freeze .* freezes all of the network"),
        ([""], "model.freeze '' is no part of the network"),
    ],
)
def test_parts_that_are_not_there(parts, message):
    model = coc()
    with pytest.raises(ValueError, match=message) as caught:
        freeze(model, parts)
    assert "\n" not in str(caught.value) and not names_frozen(model)


def test_statistics_of_frozen_norms_stay_whatever_the_mode():
    resnet = timm.create_model("resnet10t", num_classes=3)
    freeze(resnet, ["stem", "layer1"])
    for model in (resnet, copy.deepcopy(resnet)):
        before = {name: value.clone() for name, value in model.named_buffers()}
        model.eval()
        model.train()
        model(torch.randn(2, 3, 32, 32))
        moved = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
        assert moved == {name for name in before if name.startswith(("layer2", "layer3", "layer4"))}
        assert model.layer2.training and not model.bn1.training


@pytest.mark.usefixtures("no_pictures")
def test_a_run_trains_the_rest_and_resumes(tiny_config, tmp_path, capsys):
    def config(**more):
        return tiny_config(model=ModelConfig("coc_tiny", TINY, freeze=("stem", "stages.1")), epochs=2, **more)

    whole, parts = config(), str(tmp_path / "parts")
    run = build_run(whole, Path(parts), build_accelerator(whole))
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    frozen = {name for name in start if name.startswith(("stages.0.reducer.", "stages.1."))}
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(start) - len(frozen)
    run.wrapped.train()
    train_step(run, [next(iter(run.splits.train))])
    assert {
        name for name, p in run.model.named_parameters() if not torch.equal(p, start[name])
    } == start.keys() - frozen
    assert all(p.grad is None for name, p in run.model.named_parameters() if name in frozen)
    train(config(output_dir=parts, max_steps=3))
    train(config(output_dir=parts))
    train(whole)
    assert "of them frozen in" in capsys.readouterr().out.replace("\n", " ")
    a, b = (load_state(f"{folder}/{FOLDER}")[0] for folder in (whole.output_dir, parts))
    for part in ("model", "ema"):
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
        assert all(torch.equal(a[part][name], start[name]) for name in frozen)
    with pytest.raises(ValueError, match="model.freeze was .* and is now None"):
        train(dataclasses.replace(whole, model=ModelConfig("coc_tiny", TINY)))


@pytest.mark.parametrize(
    "name, kind",
    [
        *itertools.product(["coc_tiny", "fec_small", "hcformer_nano"], ["images", "partial", "clouds"]),
        *itertools.product(["pointmlp", "pointmlp_coc"], ["clouds"]),
    ],
)
@pytest.mark.parametrize("part", ["stem", "1", "backbone"])
def test_gradients_of_the_rest_are_those_of_the_whole_network(name, kind, part):
    dims = 3 if kind == "clouds" else 2
    small = MLP if name.startswith("pointmlp") else {"depths": [1, 1, 1, 1], "layer_scale": 1.0}
    if name == "hcformer_nano" and kind == "clouds":
        small |= {"rel_pos": "offset", "coords": True}
    model = pointmix.create_model(name, num_classes=3, in_chans=2 * (dims == 2), coord_dims=dims, **small).eval()
    images = torch.randn(2, 2, 32, 24)
    x = torch.randn(2, 96, 3) if kind == "clouds" else images
    if kind == "partial":
        x = pointmix.PointSet.from_images(images, torch.rand(2, 32, 24) < 0.5)
    weights = torch.randn(2, 3)
    whole = copy.deepcopy(model)
    freeze(model, [part])
    for one in (whole, model):
        (one(x) * weights).sum().backward()
    expected = dict(whole.named_parameters())
    for own, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, expected[own].grad, rtol=1e-3, atol=1e-4, msg=own)
        else:
            assert p.grad is None
