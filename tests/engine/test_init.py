"""Starting from the weights of another network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from pointmix import create_model, create_segmenter
from pointmix.engine import loop, states
from pointmix.engine.checkpoint import load_run, save_model
from pointmix.engine.init import start_from
from pointmix.engine.run import build_run
from pointmix.engine.signals import Stopped
from pointmix.engine.train import build_accelerator, train
from pointmix.models.detector import create_detector
from pointmix.tasks.config import ModelConfig
from tests.engine.conftest import TINY

SMALL = TINY | {"neck_dim": 8, "decoder_dim": 8}
INFO = {"task": "classify_images", "name": "coc_tiny", "kwargs": TINY}


def classifier(classes=7, **kwargs):
    return create_model("coc_tiny", num_classes=classes, **(TINY | kwargs))


def segmenter(classes=3, **kwargs):
    return create_segmenter("coc_tiny", classes, **(SMALL | kwargs))


def saved(path, model):
    save_model(path, model, INFO)
    return path


def equal(state, place, other, name):
    return torch.equal(state[place], other[name])


def text_of(taken):
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(taken.table())
    return console.export_text()


def test_a_segmenter_takes_the_stages_and_the_last_norm_of_a_classifier(tmp_path):
    given, model = classifier(), segmenter()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    taken = start_from(model, saved(tmp_path / "model.safetensors", given), name="coc_tiny")
    theirs, ours = given.state_dict(), model.state_dict()
    stages = [key for key in theirs if key.startswith("stages.")]
    assert stages and all(equal(ours, f"backbone.{key}", theirs, key) for key in stages)
    assert equal(ours, "backbone.norm.1.weight", theirs, "norm.weight")
    changed = {key for key in ours if not equal(ours, key, before, key)}
    assert changed <= set(taken.places.values()) and not any(key.startswith("head.") for key in changed)
    assert "backbone.norm.0.weight" not in taken.places.values()
    assert set(theirs) - set(taken.places) == {"head.weight", "head.bias"}
    text = text_of(taken)
    for part in (
        "taken",
        "stages.*",
        "backbone.stages.*",
        "backbone.norm.1.*",
        "left out",
        "as initialized",
        "head.*",
    ):
        assert part in text
    assert "adapted" not in text and f"{len(stages)}" in text


def test_a_classifier_takes_those_of_a_segmenter(tmp_path):
    given, model = segmenter(), classifier()
    start_from(model, saved(tmp_path / "model.safetensors", given), name="coc_tiny")
    theirs, ours = given.state_dict(), model.state_dict()
    for key in ours:
        if key.startswith("stages."):
            assert equal(ours, key, theirs, f"backbone.{key}")
    assert equal(ours, "norm.bias", theirs, "backbone.norm.1.bias")


@pytest.mark.parametrize("make, place", [(classifier, "head.weight"), (segmenter, "head.classifier.weight")])
def test_other_classes(tmp_path, make, place):
    given, model = make(5), make(3)
    for value in given.state_dict().values():
        value.add_(1)
    own = model.state_dict()[place].clone()
    taken = start_from(model, saved(tmp_path / "model.safetensors", given), name="coc_tiny")
    theirs, ours = given.state_dict(), model.state_dict()
    assert torch.equal(ours[place], own) and taken.other_shape == {place, place.replace("weight", "bias")}
    assert all(equal(ours, key, theirs, key) for key in ours if key not in taken.other_shape)
    assert "left out, other shape" in text_of(taken) and "adapted" not in text_of(taken)


def test_clouds_take_from_images_what_does_not_depend_on_coordinates(tmp_path):
    given, model = classifier(), segmenter(in_chans=1, coord_dims=3)
    taken = start_from(model, saved(tmp_path / "model.safetensors", given), name="coc_tiny")
    assert {"stages.0.reducer.weight"} <= taken.other_shape  # the file does not say how many of its channels are colors
    assert equal(model.state_dict(), "backbone.stages.1.reducer.weight", given.state_dict(), "stages.1.reducer.weight")


@pytest.mark.parametrize("first", ["segmenter", "detector"])
def test_the_fpn_of_segmenters_and_detectors_is_the_same(tmp_path, first):
    sizes = TINY | {"neck_dim": 8}
    detector = create_detector("coc_tiny", 2, anchor_sizes=(8, 16, 32), **sizes)
    dense = create_segmenter("coc_tiny", 3, **sizes, decoder_dim=8)
    given, model = (dense, detector) if first == "segmenter" else (detector, dense)
    taken = start_from(model, saved(tmp_path / "model.safetensors", given), name="coc_tiny")
    theirs, ours = ("head.fpn.", "neck.") if first == "segmenter" else ("neck.", "head.fpn.")
    parts = [name.removeprefix(theirs) for name in given.state_dict() if name.startswith(theirs)]
    assert len(parts) >= 8 and all(equal(model.state_dict(), ours + p, given.state_dict(), theirs + p) for p in parts)
    assert not taken.resized and not taken.other_shape
    row = next(line for line in text_of(taken).splitlines() if theirs.split(".")[0] in line and "taken" in line)
    assert ours.split(".")[0] in row


@pytest.mark.parametrize(
    "name, pairs",
    [
        ("resnet18", {"layer4.1.bn2.running_var": "layer4.1.bn2.running_var"}),
        ("convnext_atto", {"stages.3.blocks.1.mlp.fc1.weight": "stages_3.blocks.1.mlp.fc1.weight"}),
        ("mvitv2_tiny", {"stages.3.blocks.0.norm1.weight": "model.stages.3.blocks.0.norm1.weight"}),
    ],
)
def test_a_network_of_timm(tmp_path, name, pairs):
    given = timm.create_model(name, num_classes=4)
    save_file(given.state_dict(), tmp_path / "timm.safetensors")
    model = create_segmenter(name, 3, neck_dim=8, decoder_dim=8)
    taken = start_from(model, tmp_path / "timm.safetensors", name=name)
    for key, place in pairs.items():
        assert equal(model.state_dict(), f"backbone.body.{place}", given.state_dict(), key)
    body = {place for place in model.state_dict() if place.startswith("backbone.body.")}
    assert body <= set(taken.places.values())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_of_the_authors(tmp_path, suffix):
    generator = np.random.default_rng(0)
    first, norm, both = (torch.tensor(generator.random(size), dtype=torch.float32) for size in [(16, 5, 3, 3), 24, 16])
    names = {"patch_embed.proj.weight": first, "norm2.weight": norm, "other": both}
    half = {f"network.0.0.token_mixer.{part}.bias": both + i for i, part in enumerate("fv")}
    path = tmp_path / f"released{suffix}"
    torch.save({"state_dict": names | half}, path) if suffix == ".pth" else save_file(names | half, path)
    model = segmenter()
    taken = start_from(model, path, name="coc_tiny")
    state = model.state_dict()
    assert torch.equal(
        state["backbone.stages.0.reducer.weight"].reshape(-1).sort().values, first.reshape(-1).sort().values
    )
    assert torch.equal(state["backbone.norm.1.weight"], norm)
    assert torch.equal(state["backbone.stages.0.blocks.0.mixer.qv.bias"], torch.cat([both, both + 1]))
    assert "other" not in taken.places


def test_what_cannot_be_started_from(tmp_path):
    model = segmenter()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = saved(tmp_path / "model.safetensors", classifier())
    data = bytearray(good.read_bytes())
    data[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"a.b": torch.zeros(3, 4)}, tmp_path / "other.safetensors")
    weights = load_file(good) | {"norm.weight": torch.full((24,), torch.nan)}
    save_file(weights, tmp_path / "nan.safetensors")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "damaged.safetensors": "its digest differs",
        "text.safetensors": "is not a safetensors file",
        "other.safetensors": r"of another network than coc_tiny: none of its 1 tensors fits, the first is a.b \(3, 4\)",
        "nan.safetensors": "norm.weight is not finite",
        "empty": "has no model.safetensors; has the run ended",
        "nowhere": "no such file",
        "nowhere.pth": "no such file",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message) as e:
            start_from(model, tmp_path / name, name="coc_tiny")
        assert "\n" not in str(e.value)
    assert all(equal(model.state_dict(), key, before, key) for key in before)


@pytest.mark.usefixtures("no_pictures")
class TestRuns:
    @pytest.fixture
    def first(self, tiny_config, tmp_path):
        """A finished run."""
        train(tiny_config(output_dir=str(tmp_path / "first"), epochs=1, optim={"warmup_epochs": 0}))
        return tmp_path / "first"

    def test_the_average_starts_there_too(self, tiny_config, first):
        model, _ = load_run(first)
        cfg = tiny_config(optim={"ema_decay": 0.5})
        cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, init=str(first)))
        run = build_run(cfg, first, build_accelerator(cfg))
        for network in (run.model, run.ema.module):
            state = network.state_dict()
            assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())

    def test_a_resumed_run_does_not_read_it(self, tiny_config, first, monkeypatch, capsys, tmp_path):
        base = tiny_config(epochs=2, data={"limit": 48})
        base = dataclasses.replace(base, model=dataclasses.replace(base.model, init=str(first)))
        train(base)
        expected = (tmp_path / "run" / "model.safetensors").read_bytes()
        assert "100.0 % of the network's numbers are from" in capsys.readouterr().out.replace("\n", " ")
        again, step, steps = dataclasses.replace(base, output_dir=str(tmp_path / "again")), loop.train_step, []

        def stopped(*args, **kwargs):
            steps.append(1)
            if len(steps) == 5:
                raise Stopped(15, "stopped")
            return step(*args, **kwargs)

        monkeypatch.setattr(loop, "train_step", stopped)
        with pytest.raises(Stopped):
            train(again)
        assert states.list_states(tmp_path / "again" / states.FOLDER)
        monkeypatch.setattr(loop, "train_step", step)
        other = dataclasses.replace(again, model=ModelConfig("coc_tiny", base.model.kwargs, init="elsewhere"))
        with pytest.raises(ValueError, match="model.init was .* and is now 'elsewhere'"):
            train(other)
        (first / "model.safetensors").unlink()
        capsys.readouterr()
        train(again)
        assert f"model.init {first} is not read" in capsys.readouterr().out.replace("\n", " ")
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == expected

    def test_several_processes_start_from_the_same_weights(self, tiny_config, first, forks):
        cfg = tiny_config(epochs=1, data={"limit": 64}, batch_size=8, optim={"warmup_epochs": 0})
        cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, init=str(first)), max_steps=1)
        answer = forks.run(cfg, ranks=2)
        assert answer["codes"] == [0, 0], answer["out"]
        assert answer["out"].count("numbers are from") == 1
