"""What a run finds in its folder when it goes on or ends."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pointmix.engine import states
from pointmix.engine import train as engine
from pointmix.engine.resume import finished_metrics, previous_state
from pointmix.engine.train import train

pytestmark = pytest.mark.usefixtures("no_pictures")


def folder(cfg):
    return Path(cfg.output_dir, states.FOLDER)


def test_checkpoint_of_another_model_names_the_tensor(tiny_config):
    cfg = tiny_config(max_steps=1)
    train(cfg)
    state, _ = states.load_state(folder(cfg))
    state["model"]["head.weight"] = torch.zeros(3, 24)
    states.save_state(folder(cfg), state)
    with pytest.raises(ValueError, match=r"state1-step1-.*.pt holds another model: head.weight has shape \(3, 24\)"):
        train(dataclasses.replace(cfg, max_steps=2))


def test_a_checkpoint_of_an_earlier_version_is_told(tiny_config):
    cfg = tiny_config(max_steps=1)
    folder(cfg).mkdir(parents=True)
    (folder(cfg) / "last.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="last.pt was written by an earlier version, without a digest; give another"):
        train(cfg)
    assert train(dataclasses.replace(cfg, restart=True))["steps"] == 1
    assert not (folder(cfg) / "last.pt").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("task"), "does not name its task: an earlier version wrote it; give another --output"),
        (
            lambda state: state.update(task="count_points"),
            "of the task count_points, this is a run of classify_images;",
        ),
        (
            lambda state: state.update(task=[1]),
            r"of the task \[1\], this is a run of classify_images; give another --ou",
        ),
    ],
)
def test_a_checkpoint_of_another_task_is_refused(tiny_config, change, message):
    cfg = tiny_config(max_steps=1)
    train(cfg)
    state, _ = states.load_state(folder(cfg))
    change(state)
    states.save_state(folder(cfg), state)
    with pytest.raises(ValueError, match=message) as e:
        train(dataclasses.replace(cfg, max_steps=2))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("damage", ["empty", "changed", "missing", "another"])
def test_the_best_weights_are_looked_at_before_they_are_tested(tiny_config, monkeypatch, damage):
    """They are damaged after the last save."""
    cfg, fit = tiny_config(max_steps=2), engine.fit

    def damaging(run, *args):
        fit(run, *args)
        best = folder(cfg) / run.best_file
        if damage == "missing":
            best.unlink()
        elif damage == "another":
            run.best_file = states.save_best(folder(cfg), run.model, {"name": "x"}, step=1)
        else:
            best.write_bytes(b"" if damage == "empty" else best.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(engine, "fit", damaging)
    expected = {"missing": "No such file.*best-step2", "another": "best weights are .*best-step1.*those of step 2"}
    with pytest.raises((ValueError, OSError), match=expected.get(damage, "best-step2-.* is damaged")) as e:
        train(cfg)
    assert "\n" not in str(e.value) and not Path(cfg.output_dir, "metrics.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"more_tests": {}, "steps": 2}'])
def test_metrics_that_are_damaged_are_written_anew(tiny_config, text):
    cfg = tiny_config(max_steps=2)
    metrics = train(cfg)
    path = Path(cfg.output_dir, "metrics.json")
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"{path} is damaged and is written anew: ") as told:
        again = train(cfg)
    assert len([w for w in told if "metrics.json" in str(w.message)]) == 1
    assert again == json.loads(path.read_text()) and again["test"] == metrics["test"]


def test_a_finished_run_is_seen_without_reading_its_tensors(tiny_config, monkeypatch):
    cfg = tiny_config(max_steps=2)
    metrics = train(cfg)
    monkeypatch.setattr(states, "check_file", lambda path: 1 / 0)
    state, _ = previous_state(cfg, Path(cfg.output_dir), processes=1, quick=True)
    assert finished_metrics(cfg, Path(cfg.output_dir), state) == metrics
