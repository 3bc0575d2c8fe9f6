"""A task from outside the package is trained, evaluated, used and resumed by the same engine and scripts."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.engine import states
from pointmix.engine.checkpoint import load_run
from pointmix.tasks import base
from tests.engine.conftest import one_thread
from tests.engine.trees import assert_equal
from tests.outside.commands import script

__all__ = ["one_thread"]
MODULE = "tests.outside.count_points"
NET = dict(depths=[1, 1, 1, 1], dims=[16, 16, 16, 16], heads=2, head_dim=8)
TRAIN = ["--import", MODULE, "--task", "count_points", f"--model.kwargs={json.dumps(NET)}", "--batch_size=8"]
TRAIN += ["--epochs=3", "--optim.lr=0.03", "--optim.lr_scale=none", "--log_every=2"]


BUILT_IN = {name: base.get_task(name) for name in base._BUILT_IN}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Each test imports the module anew; its task is forgotten afterwards."""
    monkeypatch.setattr(base, "_TASKS", dict(BUILT_IN))
    sys.modules.pop(MODULE, None)
    yield
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("count") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_TASKS", dict(BUILT_IN))
        assert script("train")([*TRAIN, f"--output_dir={folder}"]) == 0
    return folder


def test_it_is_trained(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == "count_points" and metrics["monitor"] == "mae" and metrics["steps"] == 18
    errors = [entry["val"]["mae"] for entry in metrics["history"]]
    assert metrics["selected"]["val"]["mae"] == min(errors) < 20  # the smallest is selected; all ones err by 21
    assert metrics["pictures"] == ["curves.png", "counts.png"]
    for name in metrics["pictures"]:
        with Image.open(run / name) as picture:
            assert min(picture.size) > 100


def test_it_is_resumed_bit_for_bit(run, tmp_path, capsys):
    argv = [*TRAIN, f"--output_dir={tmp_path}/parts"]
    for steps in (4, 9):
        assert script("train")([*argv, f"--max_steps={steps}"]) == 0
    assert script("train")(argv) == 0
    assert "resuming from step 9 of 18" in capsys.readouterr().out
    straight, parts = (states.load_state(folder / states.FOLDER)[0] for folder in (run, tmp_path / "parts"))
    assert_equal(straight["model"], parts["model"])
    assert_equal(straight["optimizer"], parts["optimizer"])


def test_it_is_evaluated(run, tmp_path, capsys):
    out = tmp_path / "result.json"
    assert script("evaluate")([str(run), "--import", MODULE, "--out", str(out), "--device", "cpu"]) == 0
    result, metrics = json.loads(out.read_text()), json.loads((run / "metrics.json").read_text())
    assert result["mae"] == pytest.approx(metrics["test"]["mae"], rel=1e-4) and result["clouds"] == 48
    shown = capsys.readouterr().out
    assert "MAE" in shown and f"{result['mae']:.4f}" in shown
    assert script("evaluate")([str(run), "--import", MODULE, "--data.clouds", "5", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["clouds"] == 5
    assert script("evaluate")([str(run), "--import", MODULE, "--votes", "5"]) == 2
    assert "--votes is a flag of classify_points" in capsys.readouterr().err


def test_it_predicts_for_files(run, tmp_path, capsys):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).random((12, 3)).astype(np.float32))
    argv = ["--run", str(run), "--import", MODULE, "--device", "cpu"]
    assert script("predict")([*argv, str(tmp_path / "cloud.npy")]) == 0
    model, info = load_run(run)
    with torch.no_grad():
        expected = model(torch.from_numpy(np.load(tmp_path / "cloud.npy"))[None])[0, 0].item()
    row = next(line for line in capsys.readouterr().out.splitlines() if " 12 " in line)
    assert f" {expected:.1f} " in row and info["task"] == "count_points"
    assert script("predict")([*argv, str(tmp_path / "none.npy")]) == 2
    assert script("explain")([*argv, str(tmp_path / "cloud.npy"), "--out", "x.png"]) == 2
    assert "count_points has no pictures of files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["evaluate", "predict", "explain"])
def test_without_its_module_it_is_unknown(run, tmp_path, capsys, name):
    more = {"evaluate": [], "predict": ["a.npy"], "explain": ["a.npy", f"--out={tmp_path}/x.png"]}[name]
    assert script(name)(["--run", str(run), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors: no task 'count_points' is registered, expected one of classify_images, " in line
    assert "--import MODULE imports a module that registers one" in line


def test_help_lists_its_keys(capsys):
    with pytest.raises(SystemExit):
        script("train")([*TRAIN, "--help"])
    assert "--data.largest" in capsys.readouterr().out
