"""Runs of several processes: losses, locks, and going on with another number of processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pointmix.engine import states
from pointmix.engine.lock import lock
from pointmix.engine.resume import previous_state

SGD = {"opt": "sgd", "lr": 0.1}
PLAIN = dict(kwargs={"drop_path_rate": 0.0}, mix={"mixup": 0.0, "cutmix": 0.0}, optim=SGD, epochs=2)


def state(cfg):
    return states.load_state(Path(cfg.output_dir, states.FOLDER))[0]


def test_resumed_in_mid_epoch_each_process_has_its_own_losses(tiny_config, forks, tmp_path):
    straight = tiny_config(batch_size=8, epochs=1)
    parts = dataclasses.replace(straight, output_dir=str(tmp_path / "parts"))
    for cfg in (straight, dataclasses.replace(parts, max_steps=4), parts):
        done = forks.run(cfg, ranks=2)
        assert done["codes"] == [0, 0], done["out"]
        if cfg.max_steps:
            losses = [part["losses"] for part in state(cfg)["processes"]]
            assert len(losses[0]) == 4 and losses[0] != losses[1]
    one, two = (
        json.loads(Path(cfg.output_dir, "metrics.json").read_text())["history"][-1] for cfg in (straight, parts)
    )
    assert one["step"] == two["step"] == 7 and one["train_loss"] == two["train_loss"]


def test_two_processes_then_one_then_four(tiny_config, forks, tmp_path):
    """The same samples in each step: after 14 steps the weights of one process, but for the order of sums."""
    straight = tiny_config(batch_size=16, output_dir=str(tmp_path / "straight"), **PLAIN)
    assert forks.run(straight)["codes"] == [0]
    then = None
    for ranks, batch_size, accum, steps in ((2, 8, 1, 3), (1, 8, 2, 5), (1, 16, 1, 9), (4, 4, 1, None)):
        cfg = tiny_config(batch_size=batch_size, grad_accum_steps=accum, max_steps=steps, **PLAIN)
        done = forks.run(cfg, ranks=ranks)
        assert done["codes"] == [0] * ranks, done["out"]
        assert len(state(cfg)["processes"]) == ranks and state(cfg)["train_state"]["step"] == (steps or 14)
        if then is not None:
            was = f"was {then} and is now {batch_size} x {accum} x {ranks}: the samples of each step stay the same"
            assert f"batch_size x grad_accum_steps x processes {was}" in done["out"]
        then = f"{batch_size} x {accum} x {ranks}"
    one, many = state(straight), state(cfg)
    assert one["optimizer"]["param_groups"][0]["lr"] == many["optimizer"]["param_groups"][0]["lr"]
    for key, value in one["model"].items():
        torch.testing.assert_close(many["model"][key], value, rtol=0, atol=2e-6)
    losses = [[entry["train_loss"] for entry in found["train_state"]["history"]] for found in (one, many)]
    assert losses[1][-1] == pytest.approx(losses[0][-1], abs=1e-5)


def test_another_total_batch_is_refused(tiny_config, forks):
    cfg = tiny_config(batch_size=8, max_steps=2)
    assert forks.run(cfg, ranks=2)["codes"] == [0, 0]
    what = "total batch: batch_size x grad_accum_steps x processes was 8 x 1 x 2 and now 8 x 1 x 1; give the same total"
    with pytest.raises(ValueError, match=what) as e:
        previous_state(cfg, Path(cfg.output_dir), processes=1)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="another configuration: batch_size was 8 and is now 10"):
        previous_state(dataclasses.replace(cfg, batch_size=10), Path(cfg.output_dir), processes=2)


def test_a_total_batch_that_drops_other_samples_is_refused(tiny_config, forks):
    """104 images: 3 whole batches of 32 and 8 more, which are a step of their own where they come in batches of 8."""
    cfg = tiny_config(batch_size=32, max_steps=2, data={"limit": 104})
    assert forks.run(cfg)["codes"] == [0]
    done = forks.run(dataclasses.replace(cfg, batch_size=8, grad_accum_steps=4, max_steps=3))
    assert done["codes"] == [2] and done["out"].count("\n") == 1, done["out"]
    assert "is of other data: 9 steps in all, now 12" in done["out"]


def test_a_locked_folder_is_refused_in_every_process(tiny_config, forks):
    cfg = tiny_config(batch_size=8)
    with lock(Path(cfg.output_dir)):
        done = forks.run(cfg, ranks=2)
    assert done["codes"] == [2, 2], done["out"]
    lines = [line for line in done["out"].splitlines() if "error:" in line]
    assert len(set(lines)) == 1 and f"another run writes to {cfg.output_dir} (process " in lines[0], done["out"]
