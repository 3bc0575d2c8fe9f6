from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import pointmix
from pointmix.engine.optimizer import build_optimizer
from pointmix.engine.run import build_run
from pointmix.engine.states import FOLDER, load_state
from pointmix.engine.train import build_accelerator, train
from pointmix.models.segmenter import create_segmenter
from pointmix.tasks.config import OptimConfig
from tests.engine.conftest import TINY


def rates(model, optimizer) -> dict[str, float]:
    name_of = {id(p): name for name, p in model.named_parameters()}
    return {name_of[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def decays(model, optimizer) -> dict[str, float]:
    name_of = {id(p): name for name, p in model.named_parameters()}
    return {name_of[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


def test_rates_fall_from_the_head_to_the_stem():
    model = pointmix.create_model("coc_tiny", num_classes=3, **(TINY | {"depths": [2, 1]}))
    found = rates(model, build_optimizer(model, OptimConfig(layer_decay=0.5, sched="none"), lr=0.8))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for start, rate in (
        ("head.weight", 0.8),
        ("norm.weight", 0.8),
        ("stages.1.blocks.0.mlp.fc1.weight", 0.4),
        ("stages.1.reducer.weight", 0.4),
        ("stages.0.blocks.1.norm1.bias", 0.2),
        ("stages.0.blocks.0.norm1.weight", 0.1),
        ("stages.0.reducer.weight", 0.05),
    ):
        assert found[start] == pytest.approx(rate), start
    assert len(set(found.values())) == 5


def test_a_segmenter_has_the_layers_of_its_backbone_and_then_the_head():
    model = create_segmenter("coc_tiny", num_classes=3, in_chans=3, **TINY)
    found = rates(model, build_optimizer(model, OptimConfig(layer_decay=0.5, sched="none"), lr=1.0))
    assert {rate for name, rate in found.items() if name.startswith("head.")} == {1.0}
    assert {rate for name, rate in found.items() if name.startswith("backbone.norm.")} == {0.5}
    assert found["backbone.stages.1.reducer.weight"] == 0.25 and found["backbone.stages.0.reducer.weight"] == 0.0625


@pytest.mark.parametrize("name, stem, last", [("resnet10t", "conv1.0.weight", "layer4.0.conv2.weight"),
    ("convnext_atto", "stem_0.weight", "stages_3.blocks.1.gamma")])  # fmt: skip
def test_a_segmenter_on_a_network_of_timm_has_the_layers_of_the_classifier(name, stem, last):
    model = create_segmenter(name, num_classes=3)
    state = torch.get_rng_state()
    found = rates(model, build_optimizer(model, OptimConfig(layer_decay=0.5, sched="none"), lr=1.0))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert {rate for name, rate in found.items() if name.startswith("head.")} == {1.0}
    assert found[f"backbone.body.{last}"] == 0.5 and found[f"backbone.body.{stem}"] == min(found.values()) < 0.1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("decay_all", [False, True])
def test_weight_decay_is_that_without_layer_decay(decay_all):
    model = pointmix.create_model("hcformer_nano", num_classes=3)
    plain, layered = (
        decays(model, build_optimizer(model, OptimConfig(layer_decay=value, decay_all=decay_all), lr=1.0))
        for value in (None, 0.9)
    )
    assert plain == layered and set(plain.values()) == ({0.05} if decay_all else {0.0, 0.05})


@pytest.mark.parametrize("sched", ["cosine", "none"])
def test_schedules_keep_the_ratios(tiny_config, sched):
    optim = {"layer_decay": 0.5, "sched": sched, "warmup_epochs": None if sched == "none" else 1}
    cfg = tiny_config(optim=optim)
    run = build_run(cfg, Path(cfg.output_dir), build_accelerator(cfg))
    for step in (0, 3, 9, 20):
        if run.scheduler is not None:
            run.scheduler.step_update(step)
        found = rates(run.model, run.optimizer)
        assert run.lr == found["head.weight"] > 0
        assert found["stages.0.reducer.weight"] / run.lr == pytest.approx(0.125)
        assert found["stages.1.blocks.0.norm2.bias"] / run.lr == pytest.approx(0.5)
    assert sched == "cosine" or run.lr == cfg.optim.scaled_lr(16)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_layer_decay_resumes(tiny_config, tmp_path, capsys):
    optim = {"layer_decay": 0.7}
    whole, parts = tiny_config(optim=optim, epochs=2), str(tmp_path / "parts")
    train(whole)
    assert "in the head, times 0.7 a layer" in capsys.readouterr().out.replace("\n", " ")
    train(tiny_config(optim=optim, epochs=2, output_dir=parts, max_steps=3))
    train(tiny_config(optim=optim, epochs=2, output_dir=parts))
    a, b = (load_state(f"{folder}/{FOLDER}")[0]["model"] for folder in (whole.output_dir, parts))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, float("nan")])
def test_layer_decay_out_of_range(value):
    with pytest.raises(ValueError, match="optim.layer_decay must be above 0 and at most 1"):
        OptimConfig(layer_decay=value)


def test_networks_of_timm_and_networks_without_layers():
    model = timm.create_model("resnet10t", num_classes=3)
    found = rates(model, build_optimizer(model, OptimConfig(layer_decay=0.5, sched="none"), lr=1.0))
    assert found["fc.weight"] == 1.0 and found["conv1.0.weight"] == min(found.values()) < 0.1
    with pytest.raises(ValueError, match=r"optim.layer_decay: Linear does not name its layers \(no group_matcher\)"):
        build_optimizer(torch.nn.Linear(2, 3), OptimConfig(layer_decay=0.5), lr=1.0)
