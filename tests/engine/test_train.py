from __future__ import annotations

import dataclasses
import json
import os
import signal

import pytest
import torch
import yaml

import pointmix
from pointmix.engine import checkpoint, load_run, run
from pointmix.engine import train as engine
from pointmix.engine.config import as_plain
from pointmix.engine.train import Stopped, train

no_pictures = pytest.mark.usefixtures("no_pictures")


def last(cfg):
    return checkpoint.load_state(f"{cfg.out}/{checkpoint.LAST}")


def test_run_folder_holds_everything(tiny_config, tmp_path, capsys, monkeypatch):
    tested, measure = [], run.evaluate

    def counted(model, loader, **kwargs):
        tested.append(loader)
        return measure(model, loader, **kwargs)

    monkeypatch.setattr(run, "evaluate", counted)
    cfg = tiny_config()
    metrics = train(cfg)
    out = tmp_path / "run"
    assert {p.name for p in out.iterdir()} >= {
        "config.yaml", "metrics.json", "model.safetensors", "checkpoint", "curves.png", "clusters.png",
    }  # fmt: skip
    assert not list(out.rglob(".*"))  # nothing half written is left
    assert yaml.safe_load((out / "config.yaml").read_text()) == as_plain(cfg)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["steps"] == 21 and [e["epoch"] for e in metrics["history"]] == [1, 2, 3]
    assert metrics["selected"] == max(metrics["history"], key=lambda e: e["val"]["top1"])
    assert metrics["parameters"] == sum(p.numel() for p in load_run(out)[0].parameters())
    assert set(metrics["test"]) == {"top1", "top5", "loss"}
    sizes = [len(loader.dataset) for loader in tested]
    assert sizes == [120, 120, 120, 599]  # the test images once, at the end
    assert "test top-1" in capsys.readouterr().out

    model, info = load_run(out)
    assert info["classes"] == [str(d) for d in range(10)] and info["img_size"] == 8 and info["in_chans"] == 1
    assert not torch.equal(last(cfg)["ema"]["head.weight"], last(cfg)["model"]["head.weight"])

    again = train(cfg)
    assert again == metrics
    assert "is finished" in capsys.readouterr().out
    assert len(tested) == 4  # nothing was evaluated again


@no_pictures
def test_best_epoch_is_chosen_and_tested_by_its_average(tiny_config, monkeypatch):
    scores = iter([0.1, 0.7, 0.3, 0.0])
    kept = []

    def fake(model, loader, **_):
        kept.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"top1": next(scores), "top5": 1.0, "loss": 1.0}

    monkeypatch.setattr(run, "evaluate", fake)
    cfg = tiny_config()
    metrics = train(cfg)
    assert metrics["selected"]["epoch"] == 2
    final = load_run(cfg.out)[0].state_dict()
    for key, value in final.items():
        assert torch.equal(value, kept[1][key]) and torch.equal(value, kept[3][key])
    assert not torch.equal(kept[1]["head.weight"], kept[2]["head.weight"])


@no_pictures
def test_without_validation_the_last_weights_are_taken(tiny_config):
    cfg = tiny_config(data={"val_fraction": 0.0}, optim={"ema_decay": None})
    metrics = train(cfg)
    assert metrics["selected"]["epoch"] == 3 and metrics["selected"]["val"] is None
    assert torch.equal(load_run(cfg.out)[0].head.weight, last(cfg)["model"]["head.weight"])


def test_any_timm_model_is_a_baseline(tiny_config, tmp_path, capsys):
    model = engine.TrainConfig().model.__class__("test_resnet", {})
    cfg = dataclasses.replace(tiny_config(data={"img_size": 32}), model=model, epochs=1, max_steps=2, precision="bf16")
    metrics = train(cfg)
    assert metrics["steps"] == 2 and metrics["model"]["name"] == "test_resnet"
    assert "no clusters.png: test_resnet has no explain()" in capsys.readouterr().out
    assert not (tmp_path / "run" / "clusters.png").exists()
    assert load_run(cfg.out)[0](torch.rand(1, 1, 32, 32)).shape == (1, 10)


@no_pictures
def test_learning_rate_follows_the_total_batch_and_decay_spares_vectors(tiny_config):
    cfg = tiny_config(optim={"lr": 0.01, "lr_base_batch": 128, "warmup_epochs": 0}, accum=2, max_steps=1)
    train(cfg)
    groups = last(cfg)["optimizer"]["param_groups"]
    assert groups[0]["initial_lr"] == pytest.approx(0.01 * 16 * 2 / 128)
    model = pointmix.create_model("coc_tiny", num_classes=10, in_chans=1, **cfg.model.kwargs)
    vectors = sum(p.ndim <= 1 for p in model.parameters())
    decayed = {g["weight_decay"]: len(g["params"]) for g in groups}
    assert decayed == {0.0: vectors, 0.05: len(list(model.parameters())) - vectors}


@no_pictures
def test_accumulation_equals_one_large_batch(tiny_config):
    same = dict(mix={"mixup": 0.0, "cutmix": 0.0}, kwargs={"drop_path_rate": 0.0}, max_steps=6)
    base = {"lr_base_batch": 32, "opt": "sgd", "lr": 0.1}
    weights = []
    for shape in ({"batch_size": 32}, {"accum": 2}):
        cfg = tiny_config(optim=base, data={"limit": 96}, restart=True, **same, **shape)
        train(cfg)
        weights.append(last(cfg)["model"])
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-6)


@no_pictures
def test_short_last_group_of_an_epoch_is_a_step_of_its_own(tiny_config):
    metrics = train(tiny_config(accum=2))
    assert metrics["steps"] == 3 * 4  # 7 batches: groups of 2, 2, 2 and 1


@no_pictures
def test_loss_that_is_not_finite_stops_with_step_and_checkpoint(tiny_config, monkeypatch):
    cfg = tiny_config(save_every_steps=2)
    step = engine._step
    monkeypatch.setattr(engine, "_step", lambda r, g: step(r, g) * (float("nan") if r.at.step == 5 else 1.0))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 5; the last good checkpoint is .*, of step 4"):
        train(cfg)
    assert last(cfg)["progress"]["step"] == 4


@no_pictures
def test_weights_that_are_not_finite_are_never_saved(tiny_config, monkeypatch):
    cfg = tiny_config(save_every_steps=3)
    step = engine._step

    def spoil(r, g):
        loss = step(r, g)
        if r.at.step == 6:
            r.model.head.weight.data[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(engine, "_step", spoil)
    with pytest.raises(FloatingPointError, match="weights are not finite at step 6; .* of step 3"):
        train(cfg)
    assert last(cfg)["progress"]["step"] == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_step_and_saves(tiny_config, monkeypatch, signum):
    cfg = tiny_config()
    step, before = engine._step, signal.getsignal(signum)

    def interrupted(r, g):
        if r.at.step == 4:
            os.kill(os.getpid(), signum)
        return step(r, g)

    monkeypatch.setattr(engine, "_step", interrupted)
    with pytest.raises(Stopped, match=f"stopped by {signum.name} at step 5; the same command goes on") as e:
        train(cfg)
    assert e.value.signum == signum and isinstance(e.value, KeyboardInterrupt)
    assert last(cfg)["progress"]["step"] == 5
    assert signal.getsignal(signum) is before


@no_pictures
def test_changed_configuration_is_refused(tiny_config, tmp_path):
    cfg = tiny_config(max_steps=1)
    train(cfg)
    with pytest.raises(ValueError, match="another configuration: optim.lr was 0.001 and is now 0.5; give another"):
        train(dataclasses.replace(cfg, optim=dataclasses.replace(cfg.optim, lr=0.5)))
    metrics = train(dataclasses.replace(cfg, max_steps=2, log_every=1, save_every_steps=7))
    assert metrics["steps"] == 2
    restarted = dataclasses.replace(cfg, optim=dataclasses.replace(cfg.optim, lr=0.5), restart=True)
    assert train(restarted)["steps"] == 1


@no_pictures
def test_checkpoint_of_another_model_names_the_tensor(tiny_config):
    cfg = tiny_config(max_steps=1)
    train(cfg)
    state = last(cfg)
    state["model"]["head.weight"] = torch.zeros(3, 24)
    checkpoint.save_state(f"{cfg.out}/{checkpoint.LAST}", state)
    with pytest.raises(ValueError, match=r"last.pt holds another model: head.weight has shape \(3, 24\), exp"):
        train(dataclasses.replace(cfg, max_steps=2))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"kwargs": {"num_classes": 5}}, "model.kwargs.num_classes is set by the data"),
        ({"kwargs": {"dimms": [3]}}, "cannot create model coc_tiny with kwargs .*dimms"),
        ({"optim": {"opt": "adamm"}}, "adamm"),
        ({"optim": {"sched": "cosinus"}}, "cosinus"),
        ({"data": {"source": "folder", "root": "/no/such/folder"}}, "/no/such/folder"),
    ],
)
def test_bad_configurations(tiny_config, change, message):
    if change.get("precision") == "fp16" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((ValueError, OSError), match=message):
        train(tiny_config(**change))
