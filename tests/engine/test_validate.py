"""A state is right in every field, or it is refused before any of it is used."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from pointmix.data.images.config import DataConfig
from pointmix.engine import loop, states
from pointmix.engine.resume import previous_state, restore_run
from pointmix.engine.run import build_run
from pointmix.engine.train import build_accelerator, train
from pointmix.engine.validate import check_state
from pointmix.tasks.classify_images import ClassifyImagesConfig
from pointmix.tasks.config import ModelConfig, OptimConfig

STATE = "train_state"
CHANGES = {
    "no optimizer": (lambda s: s.pop("optimizer"), "optimizer is missing"),
    "no optimizer's state": (lambda s: s["optimizer"].pop("state"), "optimizer has no 'state'"),
    "no processes": (lambda s: s.update(processes=[]), "of another total batch: .* 16 x 1 x 0 and now 16 x 1 x 1"),
    "processes no list": (lambda s: s.update(processes=None), "config or processes are missing"),
    "no config": (lambda s: s.update(config=[]), "config or processes are missing"),
    "no total": (lambda s: s.pop("total_steps"), "total_steps is missing"),
    "another total": (lambda s: s.update(total_steps=28), "is of other data: 28 steps in all, now 21"),
    "total of a wrong kind": (lambda s: s.update(total_steps="21"), "total_steps is '21', expected a number"),
    "no ema": (lambda s: s.update(ema=None), "ema is missing"),
    "a scaler": (lambda s: s.update(scaler={}), "scaler is set, but this run has none"),
    "train_state empty": (lambda s: s.update(train_state={}), "train_state has no 'best'"),
    "train_state no dict": (lambda s: s.update(train_state=[1]), "train_state is a list, expected a dict"),
    "train_state with more": (lambda s: s[STATE].update(x=1), "train_state has 'x', expected best, curve"),
    "step 0": (lambda s: s[STATE].update(step=0), "step 0 is not update 3 of epoch 1 with 7 steps"),
    "no steps done": (lambda s: s[STATE].update(step=0, epoch=0, update=0), "train_state.(curve|history)"),
    "a true step": (lambda s: s[STATE].update(epoch=True), "train_state.epoch is True, expected a whole number"),
    "a negative update": (lambda s: s[STATE].update(update=-1), "train_state.update is -1"),
    "seconds": (lambda s: s[STATE].update(seconds=float("nan")), "train_state.seconds is nan"),
    "curve": (lambda s: s[STATE]["curve"].append([8, float("inf"), 0.1]), "train_state.curve has a point"),
    "history": (lambda s: s[STATE]["history"].clear(), "history ends at step 0, but epoch 1 has ended"),
    "history's step": (lambda s: s[STATE]["history"][0].update(step=11), "has step 11 after 0, of 10"),
    "history's entry": (lambda s: s[STATE]["history"][0].pop("lr"), "an entry without step, train_loss"),
    "history's number": (lambda s: s[STATE]["history"][0].update(train_loss=float("nan")), "not finite, at step"),
    "history's score": (lambda s: s[STATE]["history"][0]["val"].pop("top1"), "has no val top1 at step 7"),
    "best": (lambda s: s[STATE].update(best={"step": 7}), "train_state.best is no entry of train_state.history"),
    "no best": (lambda s: s[STATE].update(best=None), "train_state.best is no entry of train_state.history"),
    "best weights": (lambda s: s.update(best_file=None), "best weights are None, expected those of step 7"),
    "skipped": (lambda s: s[STATE].update(skipped=[("a",)]), "train_state.skipped has an entry that is not file"),
    "weights no dict": (lambda s: s.update(model=[1]), "model is a list, expected names and tensors"),
    "weights empty": (lambda s: s.update(model={}), "holds another model: .* is missing"),
    "weights' key": (lambda s: s["model"].update({1: torch.zeros(1)}), "1 is not in the model"),
    "weights' value": (lambda s: s["model"].update(x=1), "model has 'x': int, expected a tensor"),
    "weights' kind": (lambda s: s["model"].update({"head.bias": torch.zeros(10).double()}), "torch.float64, expected"),
    "weights NaN": (lambda s: s["ema"]["head.bias"].fill_(float("nan")), "ema has head.bias that is not finite"),
    "groups": (lambda s: s["optimizer"]["param_groups"].pop(), "optimizer has not 2 param_groups"),
    "group's parameters": (lambda s: s["optimizer"]["param_groups"][0]["params"].pop(), "param_groups.0. has not"),
    "rate": (lambda s: s["optimizer"]["param_groups"][0].update(lr=float("nan")), "param_groups.0. has not"),
    "moment NaN": (lambda s: s["optimizer"]["state"][0]["exp_avg"].fill_(float("inf")), "'exp_avg' of parameter 0"),
    "moment's shape": (lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), "of shape \\(3,\\), exp"),
    "moment of none": (lambda s: s["optimizer"]["state"].update({999: {}}), "optimizer.state has parameter 999"),
    "scheduler": (lambda s: s["scheduler"].pop("base_values"), "scheduler has no 'base_values'"),
    "scheduler's number": (lambda s: s["scheduler"].update(base_values=[float("nan")]), "scheduler has numbers"),
    "part": (lambda s: s["processes"][0].pop("losses"), "processes.0. has no 'losses'"),
    "losses": (lambda s: s["processes"][0]["losses"].pop(), "losses are not the 3 losses of the epoch"),
    "random python": (lambda s: s["processes"][0]["rng"].update(python=(3, (1,), None)), "rng is no state"),
    "random torch": (lambda s: s["processes"][0]["rng"].update(torch=torch.zeros(3)), "rng is no state"),
    "random numpy": (lambda s: s["processes"][0]["rng"].pop("numpy"), "rng is no state"),
    "no loader": (lambda s: s["processes"][0].update(loader=None), "loader is missing in the middle"),
    "loader's epoch": (lambda s: s["processes"][0]["loader"].update(epoch=2), r"batch \(2, 3\), expected \(1, 3\)"),
    "loader's batch": (lambda s: s["processes"][0]["loader"].update(batch=4), r"at epoch and batch \(1, 4\)"),
    "loader's data": (lambda s: s["processes"][0]["loader"].update(samples=5), "samples 5, but this run has"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The configuration of a run, its parts as they are at the beginning, and a state after three steps of epoch 2."""
    model = dict(
        stem=[3, 2, 1],
        depths=[1],
        dims=[16],
        mlp_ratios=[2],
        heads=2,
        head_dim=8,
        windows_per_side=[2],
        centers_per_side=[2],
    )
    cfg = ClassifyImagesConfig(
        data=DataConfig(limit=112), model=ModelConfig(kwargs=model), epochs=3, batch_size=16, log_every=2,
        optim=OptimConfig(warmup_epochs=1, ema_decay=0.9), output_dir=str(tmp_path_factory.mktemp("saved") / "run"),
        save_every_steps=5,
    )  # fmt: skip
    step = loop.train_step

    def dying(run, group):
        return step(run, group) if run.state.step < 10 else 1 / 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", dying)
        with pytest.raises(ZeroDivisionError):
            train(cfg)
    return (
        cfg,
        build_run(cfg, Path(cfg.output_dir), build_accelerator(cfg)),
        states.load_state(Path(cfg.output_dir, states.FOLDER)),
    )


def test_the_state_itself_is_right(saved):
    cfg, run, (state, about) = saved
    check_state(run, state, source=about.file)
    diverged = copy.deepcopy(state)
    for entry in (diverged["train_state"]["history"][0], diverged["train_state"]["best"]):
        entry["val"]["loss"] = float("nan") + len(entry)
    check_state(run, diverged, source=about.file)
    assert state["train_state"]["step"] == 10 and len(state["train_state"]["history"]) == 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_with_one_wrong_field_is_refused_and_not_used(saved, monkeypatch, name):
    cfg, run, (state, about) = saved
    trained, (change, message) = state["model"]["head.weight"], CHANGES[name]
    state = copy.deepcopy(state)
    change(state)
    monkeypatch.setattr(states, "load_state", lambda *args, **kwargs: (state, about))
    with pytest.raises(ValueError, match=message) as e:
        restore_run(run, *previous_state(cfg, run.folder, processes=1))
    assert "\n" not in str(e.value) and about.file in str(e.value)
    assert run.state.step == 0 and not run.optimizer.state and not torch.equal(run.model.head.weight, trained)
