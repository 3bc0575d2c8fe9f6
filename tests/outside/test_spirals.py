"""A network is trained and evaluated on a source of clouds from outside the package."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from pointmix.data.clouds.source import SOURCES
from tests.engine.conftest import one_thread
from tests.outside.commands import script

__all__ = ["one_thread"]
MODULE = "tests.outside.spirals"
NET = dict(
    stem=[4, 2, 0],
    depths=[1],
    dims=[16],
    mlp_ratios=[2],
    heads=2,
    head_dim=8,
    windows_per_side=[2],
    centers_per_side=[2],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 3 steps. Its source is forgotten after these tests."""
    folder = tmp_path_factory.mktemp("spirals") / "run"
    argv = ["--import", MODULE, "--data.source", "spirals", "--data.points", "64", "--max_steps", "3", "--epochs", "1"]
    argv += ["--model.kwargs", json.dumps(NET), "--batch_size", "8", "--threads", "1", "--output_dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
        sys.modules.pop(MODULE, None)
        assert script("train_points")(argv) == 0
        yield folder
    sys.modules.pop(MODULE, None)


def test_it_is_trained(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["steps"] == 3 and metrics["task"] == "classify_points"


def test_it_is_evaluated(run, tmp_path, capsys):
    out = tmp_path / "result.json"
    assert script("evaluate")([str(run), "--import", MODULE, "--out", str(out), "--device", "cpu"]) == 0
    result, metrics = json.loads(out.read_text()), json.loads((run / "metrics.json").read_text())
    assert result["clouds"] == 20 and result["classes"] == ["left-handed", "right-handed"]
    assert result["oa"] == metrics["test"]["oa"] and result["loss"] == pytest.approx(metrics["test"]["loss"], rel=1e-4)
    assert "right-handed" in capsys.readouterr().out


def test_without_its_module_it_is_unknown(run, monkeypatch, capsys):
    monkeypatch.setattr(SOURCES, "_entries", {k: v for k, v in SOURCES._entries.items() if k != "spirals"})
    assert script("evaluate")([str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.source 'spirals': expected one of folder, modelnet40, " in line and "--import MODULE" in line


def test_spirals_have_the_hand_of_their_label(run):
    spirals = importlib.import_module(MODULE).Spirals("test")
    for index, label in enumerate(spirals.targets):
        x, y, z = spirals.read(index).pos.astype(np.float64).T
        order = np.argsort(z)
        turned = np.diff(np.unwrap(np.arctan2(y, x)[order]))  # right-handed: towards y where z rises
        assert (turned > 0).mean() == label
