from __future__ import annotations

import json
import statistics

import pytest

from pointmix.engine import seeds
from pointmix.engine.seeds import train_all

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_each_seed_in_a_folder_of_its_own_and_a_summary(tiny_config, tmp_path, capsys):
    cfg = tiny_config(seeds=(1, 2, 3), max_steps=2)
    summary = train_all(cfg)
    out = tmp_path / "run"
    assert json.loads((out / "seeds.json").read_text()) == summary
    runs = [json.loads((out / f"seed{seed}" / "metrics.json").read_text()) for seed in (1, 2, 3)]
    values = [run["test"]["top1"] for run in runs]
    assert summary["test"]["top1"]["values"] == values
    assert summary["test"]["top1"]["mean"] == pytest.approx(statistics.fmean(values))
    assert summary["test"]["top1"]["std"] == pytest.approx(statistics.stdev(values))
    assert len({run["test"]["loss"] for run in runs}) == 3
    assert "deviation" in capsys.readouterr().out


def test_a_stopped_run_goes_on_seed_by_seed(tiny_config, monkeypatch, capsys):
    cfg, real, done = tiny_config(seeds=(1, 2), max_steps=2), seeds.train, []

    def interrupted(one, **given):
        if done:
            raise KeyboardInterrupt
        done.append(one.seed)
        return real(one, **given)

    monkeypatch.setattr(seeds, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_all(cfg)
    monkeypatch.setattr(seeds, "train", real)
    capsys.readouterr()
    assert train_all(cfg)["seeds"] == [1, 2]
    assert capsys.readouterr().out.count("is finished") == 1  # seed 1


def test_without_seeds_it_is_one_run(tiny_config, monkeypatch):
    monkeypatch.setattr(seeds, "train", lambda cfg, recipe: (cfg.seed, recipe))
    assert train_all(tiny_config(), recipe="x.yaml") == (42, "x.yaml")
