from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

import pointmix
from pointmix.engine import checkpoint, loop, run, states
from pointmix.engine.checkpoint import load_run
from pointmix.engine.signals import Stopped
from pointmix.engine.train import train
from pointmix.tasks.base import get_task
from pointmix.tasks.config import ModelConfig, as_plain

no_pictures = pytest.mark.usefixtures("no_pictures")


def last(cfg):
    return states.load_state(f"{cfg.output_dir}/{states.FOLDER}")[0]


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
    assert 0 < metrics["history"][0]["waited"] < metrics["waited"] < metrics["seconds"]
    sizes = [len(loader.samples) for loader in tested]
    assert sizes == [20, 20, 20, 60]  # the test images once, at the end
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
    final = load_run(cfg.output_dir)[0].state_dict()
    for key, value in final.items():
        assert torch.equal(value, kept[1][key]) and torch.equal(value, kept[3][key])
    assert not torch.equal(kept[1]["head.weight"], kept[2]["head.weight"])


@no_pictures
def test_without_validation_the_last_weights_are_taken(tiny_config):
    cfg = tiny_config(data={"val_fraction": 0.0}, optim={"ema_decay": None})
    metrics = train(cfg)
    assert metrics["selected"]["epoch"] == 3 and metrics["selected"]["val"] is None
    assert torch.equal(load_run(cfg.output_dir)[0].head.weight, last(cfg)["model"]["head.weight"])


@pytest.mark.parametrize("name, kwargs", [("test_resnet", {}), ("test_vit", {"dynamic_img_size": False})])
def test_any_timm_model_is_a_baseline(tiny_config, tmp_path, name, kwargs):
    """Also one that is built for images of one size, and by default not for that of the data."""
    cfg = tiny_config(data={"img_size": 32}, model=ModelConfig(name, kwargs), epochs=1, max_steps=2, precision="bf16")
    metrics = train(cfg)
    assert metrics["steps"] == 2 and metrics["model"] == {"name": name, "kwargs": kwargs}
    assert (tmp_path / "run" / "clusters.png").exists()  # it says that no block clusters
    assert load_run(cfg.output_dir)[0](torch.rand(1, 1, 32, 32)).shape == (1, 10)


@no_pictures
def test_learning_rate_follows_the_total_batch_and_decay_spares_vectors(tiny_config):
    cfg = tiny_config(optim={"lr": 0.01, "lr_base_batch": 128, "warmup_epochs": 0}, grad_accum_steps=2, max_steps=1)
    train(cfg)
    groups = last(cfg)["optimizer"]["param_groups"]
    assert groups[0]["initial_lr"] == pytest.approx(0.01 * (16 * 2 / 128) ** 0.5)
    model = pointmix.create_model("coc_tiny", num_classes=10, in_chans=1, **cfg.model.kwargs)
    vectors = sum(p.ndim <= 1 for p in model.parameters())
    decayed = {g["weight_decay"]: len(g["params"]) for g in groups}
    assert decayed == {0.0: vectors, 0.05: len(list(model.parameters())) - vectors}


@no_pictures
def test_accumulation_equals_one_large_batch(tiny_config):
    same = dict(mix={"mixup": 0.0, "cutmix": 0.0}, kwargs={"drop_path_rate": 0.0}, max_steps=6)
    base = {"lr_base_batch": 32, "opt": "sgd", "lr": 0.1}
    weights = []
    for shape in ({"batch_size": 32}, {"grad_accum_steps": 2}):
        cfg = tiny_config(optim=base, data={"limit": 96}, restart=True, **same, **shape)
        train(cfg)
        weights.append(last(cfg)["model"])
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-6)


@no_pictures
def test_short_last_group_of_an_epoch_is_a_step_of_its_own(tiny_config):
    metrics = train(tiny_config(grad_accum_steps=2))
    assert metrics["steps"] == 3 * 4  # 7 batches: groups of 2, 2, 2 and 1


@no_pictures
def test_loss_that_is_not_finite_stops_with_step_and_checkpoint(tiny_config, monkeypatch):
    cfg = tiny_config(save_every_steps=2)
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda r, g: step(r, g) * (float("nan") if r.state.step == 5 else 1.0))
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 5; the last good checkpoint is .*, of step 4"):
        train(cfg)
    assert last(cfg)["train_state"]["step"] == 4


@no_pictures
@pytest.mark.parametrize(
    "what, name",
    [
        ("weight", "weight head.weight"),
        ("buffer", "weight seen"),
        ("average", "average of head.weight"),
        ("moment", "optimizer's exp_avg_sq of parameter 0"),
    ],
)
def test_what_is_not_finite_is_never_saved(tiny_config, monkeypatch, what, name):
    cfg = tiny_config(save_every_steps=3, optim={"ema_decay": 0.9 if what == "average" else None})
    step = loop.train_step

    def spoil(r, g):
        if r.state.step == 0 and what == "buffer":
            r.model.register_buffer("seen", torch.zeros(2))
        loss = step(r, g)
        if r.state.step == 6:
            spoiled = {
                "weight": lambda: r.model.head.weight,
                "average": lambda: r.ema.module.head.weight,
                "buffer": lambda: r.model.seen,
                "moment": lambda: next(iter(r.optimizer.state.values()))["exp_avg_sq"],
            }[what]()
            spoiled.data.view(-1)[-1] = float("inf")
        return loss

    monkeypatch.setattr(loop, "train_step", spoil)
    with pytest.raises(FloatingPointError, match=f"^{name} is not finite at step 6; .* of step 3"):
        train(cfg)
    assert last(cfg)["train_state"]["step"] == 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_step_and_saves(tiny_config, monkeypatch, signum):
    cfg = tiny_config()
    step, before = loop.train_step, signal.getsignal(signum)

    def interrupted(r, g):
        if r.state.step == 4:
            os.kill(os.getpid(), signum)
        return step(r, g)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Stopped, match=f"stopped by {signum.name} at step 5; the same command resumes") as e:
        train(cfg)
    assert e.value.signum == signum and isinstance(e.value, KeyboardInterrupt)
    assert last(cfg)["train_state"]["step"] == 5
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
def test_restart_leaves_nothing_from_which_a_run_could_go_on(tiny_config, monkeypatch):
    cfg = tiny_config(max_steps=3)
    train(cfg)
    files = [Path(cfg.output_dir, name) for name in (states.FOLDER, checkpoint.FINAL, "metrics.json")]
    assert all(file.exists() for file in files)
    monkeypatch.setattr(loop, "train_step", lambda run, group: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(dataclasses.replace(cfg, restart=True))
    assert not any(file.exists() for file in files)
    assert yaml.safe_load(Path(cfg.output_dir, "config.yaml").read_text())["restart"] is False


@no_pictures
def test_signal_during_validation_stops_after_it(tiny_config, monkeypatch):
    measure = run.evaluate
    monkeypatch.setattr(run, "evaluate", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM) or measure(*a, **k))
    cfg = tiny_config()
    with pytest.raises(Stopped, match="stopped by SIGTERM at step 7"):
        train(cfg)
    at = last(cfg)["train_state"]
    assert (at["epoch"], at["update"], len(at["history"])) == (1, 0, 1)


@no_pictures
def test_skipped_images_of_earlier_parts_of_a_run_are_reported(tiny_config, monkeypatch):
    cfg, task = tiny_config(), get_task("classify_images")
    for steps, met in ((2, ["a", "b"]), (4, ["b", "c"])):
        build = type(task).build_splits

        def damaged(self, cfg, met=met, build=build, **place):
            splits = build(self, cfg, **place)
            splits.train.failed.update(dict.fromkeys(met, "damaged"))
            return splits

        with monkeypatch.context() as patched:
            patched.setattr(type(task), "build_splits", damaged)
            metrics = train(dataclasses.replace(cfg, max_steps=steps))
    assert [file for file, _ in metrics["skipped"]] == ["a", "b", "c"]


def test_processes_share_the_averages_of_batch_norm():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.BatchNorm2d(3))
    model[1].running_mean[:] = torch.tensor([2.0, 4.0])
    other = torch.tensor([4.0, 0, 3, 3, 0, 0, 0, 1, 1, 1])  # means and variances of both layers in the other process
    accelerator = SimpleNamespace(num_processes=2, reduce=lambda own, how: (own + other) / 2)
    loop._average_statistics(SimpleNamespace(model=model, accelerator=accelerator))
    assert model[1].running_mean.tolist() == [3, 2] and model[1].running_var.tolist() == [2, 2]
    assert model[2].running_mean.tolist() == [0, 0, 0] and model[2].running_var.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"kwargs": {"num_classes": 5}}, "model.kwargs.num_classes is set by the data"),
        ({"kwargs": {"dimms": [3]}}, "cannot create model coc_tiny with kwargs .*dimms"),
        ({"model": ModelConfig("test_vit")}, "test_vit does not take images of 1x8x8"),
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


@pytest.mark.parametrize("emulated", [False, True])
def test_a_warning_where_bfloat16_is_emulated(emulated, tiny_config, capsys, monkeypatch):
    monkeypatch.setattr("pointmix.engine.train.emulates_bfloat16", lambda: emulated)
    train(tiny_config(precision="bf16", max_steps=1))
    assert ("no instructions for bfloat16" in capsys.readouterr().out) == emulated


@pytest.mark.parametrize("restart", [False, True])
def test_the_note_of_a_stop_never_tells_to_restart(restart, tmp_path):
    stopped = SimpleNamespace(cfg=SimpleNamespace(restart=restart), state=SimpleNamespace(step=3), folder=tmp_path)
    note = str(loop._stopped(stopped, [signal.SIGTERM]))
    assert note.startswith("stopped by SIGTERM at step 3; the same command")
    assert ("without --restart" in note) == restart
