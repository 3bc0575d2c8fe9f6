"""A run's results are written before its pictures, and no picture can cost them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointmix.engine import finish
from pointmix.engine.train import train
from pointmix.tasks.base import get_task

SHORT = dict(epochs=1, max_steps=1)


def drawn(cfg):
    return sorted(path.name for path in Path(cfg.output_dir).glob("*.png"))


def test_a_picture_that_fails_is_a_warning_and_is_drawn_by_the_same_command(tiny_config, monkeypatch):
    def fails(*args, **kwargs):
        assert json.loads(Path(cfg.output_dir, "metrics.json").read_text())["steps"] == 1  # which is there by now
        raise RuntimeError("no\nfont")

    cfg = tiny_config(**SHORT)
    with monkeypatch.context() as patched:
        patched.setattr(finish, "draw_curves", fails)
        with pytest.warns(UserWarning, match="^curves.png was not drawn, .* again: RuntimeError: no font$"):
            metrics = train(cfg)
    assert drawn(cfg) == ["clusters.png"] and metrics["pictures"] == ["curves.png", "clusters.png"]
    weights = Path(cfg.output_dir, "model.safetensors").read_bytes()
    before = Path(cfg.output_dir, "clusters.png").read_bytes()
    again = train(cfg)  # as after a kill between the results and the pictures
    assert json.dumps(again) == json.dumps(metrics)
    assert drawn(cfg) == ["clusters.png", "curves.png"]
    Path(cfg.output_dir, "clusters.png").unlink()
    train(cfg)
    assert Path(cfg.output_dir, "clusters.png").read_bytes() == before  # of the selected weights and the same samples
    assert Path(cfg.output_dir, "model.safetensors").read_bytes() == weights


def test_a_finished_run_is_not_built_again(tiny_config, monkeypatch):
    cfg = tiny_config(**SHORT)
    train(cfg)
    monkeypatch.setattr("pointmix.engine.train.build_run", None)
    assert train(cfg)["steps"] == 1


def test_a_network_without_clusters_is_trained_and_drawn_like_any_other(tiny_config):
    cfg = tiny_config(kwargs={"cluster": False}, **SHORT)
    metrics = train(cfg)
    assert drawn(cfg) == ["clusters.png", "curves.png"] == sorted(metrics["pictures"])


def test_a_task_may_say_why_there_is_no_picture(tiny_config, monkeypatch, capsys):
    cfg = tiny_config(**SHORT)
    pictures = {"clusters.png": "nothing clusters"}
    monkeypatch.setattr(type(get_task("classify_images")), "pictures", lambda self, *args: pictures)
    assert train(cfg)["pictures"] == ["curves.png"] == drawn(cfg)
    assert "no clusters.png: nothing clusters" in capsys.readouterr().out


def test_pictures_of_a_shorter_run_do_not_stay(tiny_config, monkeypatch):
    cfg = tiny_config(**SHORT)
    train(cfg)

    def killed(*args):
        assert drawn(cfg) == []
        raise KeyboardInterrupt

    monkeypatch.setattr("pointmix.engine.train.fit", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(epochs=1, max_steps=2))
