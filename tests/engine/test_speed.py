from __future__ import annotations

import time

import pytest

from pointmix.engine import speed
from pointmix.engine.config import ModelConfig
from pointmix.engine.speed import WARM, seconds_per_step


def test_only_steps_are_timed_and_nothing_is_written(tiny_config, tmp_path, monkeypatch):
    real, done = speed.train_step, []

    def slow(run, group):
        time.sleep(0.05 if len(done) >= WARM else 0.3)
        done.append(len(group))
        return real(run, group)

    monkeypatch.setattr(speed, "train_step", slow)
    found = seconds_per_step(tiny_config(accum=2), seconds=0.5)
    assert 0.05 < found < 0.2
    assert WARM < len(done) <= WARM + 10 and set(done) <= {1, 2}
    assert not (tmp_path / "run").exists()


def test_errors_are_those_of_training(tiny_config):
    with pytest.raises(ValueError, match="coc_huge"):
        seconds_per_step(tiny_config(model=ModelConfig("coc_huge")), seconds=0.1)
