"""Training on clouds: what differs from images, and that resuming and several processes hold here, too."""

from __future__ import annotations

import dataclasses
import json
import os

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.clouds.config import PointDataConfig
from pointmix.engine import loop, states
from pointmix.engine.checkpoint import load_run
from pointmix.engine.signals import Stopped
from pointmix.engine.train import train
from pointmix.tasks.classify_points import ClassifyPointsConfig, SmoothConfig
from pointmix.tasks.config import ModelConfig, OptimConfig

COC = dict(
    stem=[3, 2, 1], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8,
    windows_per_side=[2, 1], centers_per_side=[2, 2],
    layer_scale=1.0, drop_path_rate=0.2,
)  # fmt: skip
MLP = dict(dim=8, expansion=[2, 2], pre_blocks=[1, 1], pos_blocks=[1, 1], neighbors=4)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Files in ScanObjectNN's layout: flat clouds, long ones, and balls, of 40 points each."""
    root, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    sides = np.array([[1, 0.05, 1], [0.1, 1, 0.1], [0.6, 0.6, 0.6]])
    (root / "main_split_nobg").mkdir()
    for split, count in (("training", 60), ("test", 30)):
        label = np.arange(count) % 3
        data = rng.normal(size=(count, 40, 3)) * sides[label][:, None] / 2
        with h5py.File(root / "main_split_nobg" / f"{split}_objectdataset.h5", "w") as file:
            file.update({"data": data.astype(np.float32), "label": label})
    return root


@pytest.fixture
def config(scans, tmp_path):
    def make(*, model="coc_tiny", kwargs=None, data=None, optim=None, **top) -> ClassifyPointsConfig:
        usual = dict(source="scanobjectnn", variant="obj_only", root=str(scans), points=32, rotate=180.0, jitter=0.01)
        cfg = ClassifyPointsConfig(
            data=PointDataConfig(**(usual | dict(dropout_ratio=0.3, sampling="random") | (data or {}))),
            model=ModelConfig(model, (COC if model.startswith("coc") else MLP) | (kwargs or {})),
            optim=OptimConfig(**({"lr": 0.01, "lr_base_batch": 16, "warmup_epochs": 0} | (optim or {}))),
            mix=SmoothConfig(0.1),
            output_dir=str(tmp_path / "run"),
            epochs=3,
            batch_size=16,
            log_every=1,
        )
        return dataclasses.replace(cfg, **top)

    return make


def state(cfg):
    return states.load_state(f"{cfg.output_dir}/{states.FOLDER}")[0]


def assert_same(a, b):
    for part in ("model", "optimizer"):
        for x, y in zip(*(torch.utils._pytree.tree_leaves(s[part]) for s in (a, b)), strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("model", ["coc_tiny", "pointmlp_elite"])
def test_run_folder_holds_everything(config, tmp_path, capsys, model):
    cfg = config(model=model, epochs=8, votes=3, select="last")
    metrics = train(cfg)
    out = tmp_path / "run"
    for name in ("curves.png", "clusters.png", "confusion.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
    assert json.loads((out / "metrics.json").read_text()) == metrics
    test = metrics["test"]
    assert set(test) == {"oa", "macc", "loss", "per_class", "confusion"} and np.sum(test["confusion"]) == 30
    assert test["oa"] > 0.5  # chance is a third
    assert set(metrics["more_tests"]["3 votes"]) == {"oa", "macc", "loss"}
    assert all(set(entry["val"]) == {"oa", "macc", "loss"} for entry in metrics["history"])
    text = capsys.readouterr().out
    assert "test OA" in text and "3 votes" in text and "test data by class" in text

    model, info = load_run(out)
    assert info["task"] == "classify_points" and info["in_chans"] == 0 and len(info["classes"]) == 3
    assert model(torch.rand(2, 32, 3)).shape == (2, 3)
    assert train(cfg) == metrics
    assert train(dataclasses.replace(cfg, votes=1))["more_tests"] == {}  # tested anew, not trained


@pytest.mark.parametrize("model", ["coc_tiny", "pointmlp_elite"])
@pytest.mark.parametrize("step", [1, 3, 5])
@pytest.mark.usefixtures("no_pictures")
def test_stopped_and_resumed_bit_for_bit(config, tmp_path, monkeypatch, model, step):
    """Clouds of all sizes, drop-path or dropout, random points; three steps an epoch."""
    straight = config(model=model, output_dir=str(tmp_path / "straight"), epochs=2)
    train(straight)
    cfg, original = dataclasses.replace(straight, output_dir=str(tmp_path / "stopped")), loop.train_step

    def interrupted(run, group):
        if run.state.step + 1 == step:
            os.kill(os.getpid(), 15)
        return original(run, group)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Stopped):
        train(cfg)
    monkeypatch.setattr(loop, "train_step", original)
    torch.rand(3)
    train(cfg)
    assert_same(state(straight), state(cfg))


@pytest.mark.usefixtures("no_pictures")
def test_two_processes_equal_one(config, forks, tmp_path):
    """The sums of the confusion matrix too. Without what is drawn in each process by itself, and in SGD."""
    one = config(
        kwargs={"drop_path_rate": 0.0}, optim={"opt": "sgd", "lr": 0.05}, output_dir=str(tmp_path / "one"), epochs=2
    )
    expected = train(one)
    two = dataclasses.replace(one, output_dir=str(tmp_path / "two"), batch_size=8)
    done = forks.run(two, ranks=2)
    assert done["codes"] == [0, 0], done["out"]
    assert done["out"].count("test data by class") == 1  # one process speaks
    for key, value in state(one)["model"].items():
        torch.testing.assert_close(state(two)["model"][key], value, rtol=0, atol=1e-5)
    test = json.loads((tmp_path / "two" / "metrics.json").read_text())["test"]
    assert test["confusion"] == expected["test"]["confusion"] and test["macc"] == expected["test"]["macc"]


@pytest.mark.usefixtures("no_pictures")
def test_selection(config, tmp_path):
    """val, the last epoch, and the papers' best on test, which is named and told beside the last epoch's."""
    metrics = {s: train(config(select=s, epochs=4, output_dir=str(tmp_path / s))) for s in ("val", "last", "test")}
    histories = {s: m["history"] for s, m in metrics.items()}
    assert metrics["val"]["selected"] == max(histories["val"], key=lambda e: e["val"]["oa"])
    assert metrics["last"]["selected"] == histories["last"][-1]
    assert all("test" not in entry for s in ("val", "last") for entry in histories[s])
    found, tests = metrics["test"], [entry["test"] for entry in histories["test"]]
    assert found["selected"] == max(histories["test"], key=lambda e: e["test"]["oa"])
    assert found["test"]["oa"] == max(t["oa"] for t in tests)
    assert found["best_on_test"] == {"oa": max(t["oa"] for t in tests), "macc": max(t["macc"] for t in tests)}
    assert found["last"] == tests[-1]
    assert {name: found["last"][name] for name in ("oa", "macc")} == {
        name: metrics["last"]["test"][name] for name in ("oa", "macc")
    }  # looking on has not changed training
    assert "last" not in metrics["val"]


@pytest.mark.usefixtures("no_pictures")
def test_without_validation_the_last_epoch_counts(config):
    metrics = train(config(data={"val_fraction": 0.0}))
    assert metrics["selected"]["epoch"] == 3 and metrics["selected"]["val"] is None


@pytest.mark.usefixtures("no_pictures")
def test_decay_of_all_parameters(config):
    train(config(optim={"decay_all": True, "opt": "momentum", "weight_decay": 1e-4}, max_steps=1))
    groups = {g["weight_decay"]: len(g["params"]) for g in state(config())["optimizer"]["param_groups"]}
    assert set(groups) == {1e-4}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "resnet10t", "kwargs": dict.fromkeys(())}, "resnet10t does not take clouds: .*coord_dims.*pointmlp"),
        ({"kwargs": {"coord_dims": 2}}, "model.kwargs.coord_dims is set by the data; leave it out"),
        ({"kwargs": {"dimms": 2}}, "cannot create model coc_tiny with kwargs .*dimms"),
        ({"mix": SmoothConfig(0.8)}, "mix.smoothing must be at least 0 and below 0.667 for 3 classes, got 0.8"),
        ({"kwargs": {"global_pool": ""}}, "coc_tiny gives PointSet for one of clouds .*; leave out global_pool"),
        ({"batch_size": 4000}, "4000"),
    ],
)
def test_bad_configurations(config, tmp_path, change, message):
    if change.get("model") == "resnet10t":
        cfg = config(**{"model": "coc_tiny"})
        cfg = dataclasses.replace(cfg, model=ModelConfig("resnet10t", {}))
    else:
        cfg = config(**change)
    with pytest.raises(ValueError, match=message) as e:
        train(cfg)
    assert "\n" not in str(e.value) and not (tmp_path / "run").exists()


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="votes must be at least 1, got 0"):
        ClassifyPointsConfig(votes=0)
    with pytest.raises(ValueError, match="votes scale positions but not normals"):
        ClassifyPointsConfig(votes=2, data=PointDataConfig(features=("normal",)))
    with pytest.raises(ValueError, match="data.points must be at least 1, got 0"):
        ClassifyPointsConfig(data=PointDataConfig(points=0))
