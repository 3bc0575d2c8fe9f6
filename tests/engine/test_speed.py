from __future__ import annotations

from types import SimpleNamespace

import pytest

from pointmix.engine import speed
from pointmix.engine.speed import WARM, seconds_per_step
from pointmix.tasks.config import ModelConfig


def test_only_steps_are_timed_and_nothing_is_written(tiny_config, tmp_path, monkeypatch):
    """By a clock that only steps move on: the first ones, which are not timed, by more."""
    real, done, clock = speed.train_step, [], SimpleNamespace(now=5.0)

    def step(run, group):
        clock.now += 0.25 if len(done) >= WARM else 8.0
        done.append(len(group))
        return real(run, group)

    monkeypatch.setattr(speed, "train_step", step)
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert seconds_per_step(tiny_config(grad_accum_steps=2), seconds=0.75) == 0.25
    assert done == [2, 2, 2, 1, 2, 2]  # 7 batches an epoch, and into the next one
    assert not (tmp_path / "run").exists()


def test_errors_are_those_of_training(tiny_config):
    with pytest.raises(ValueError, match="coc_huge"):
        seconds_per_step(tiny_config(model=ModelConfig("coc_huge")), seconds=0.1)
