from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointmix.data.segment.sources import scenes
from pointmix.engine import loop
from pointmix.engine.signals import Stopped

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--model.name=coc_tiny",
    "--model.kwargs={stem: [4, 4, 0], depths: [1, 1], dims: [16, 24], mlp_ratios: [2, 2], heads: 2, head_dim: 8, "
    "windows_per_side: [2, 1], centers_per_side: [2, 2], layer_scale: 1.0, neck_dim: 16, box_dim: 32, mask_dim: 16, "
    "anchor_sizes: [16, 24, 40], canonical_scale: 224, train_proposals: 40, test_proposals: 40}",
    *("--data.workers=0", "--data.cache=true", "--epochs=2", "--batch_size=4", "--optim.warmup_epochs=0"),
    *("--optim.opt=adamw", "--optim.lr=0.005", "--threads=1"),
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_detect", ROOT / "scripts" / "train_detect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def few(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(scenes, "COUNTS", {"train": 12, "test": 5})
    yield
    torch.set_num_threads(before)


def test_without_a_recipe_digits_are_found(script, tmp_path, capsys):
    argv = [f"--output_dir={tmp_path}/run", *TINY]
    assert script.main(argv) == 0
    out = capsys.readouterr().out
    assert "detect/digit_objects" in out and "scenes, boxes and masks of 10 classes" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["task"] == "detect" and metrics["steps"] == 4
    assert 0 <= metrics["test"]["box_ap"] <= 1 and 0 <= metrics["test"]["mask_ap"] <= 1
    assert sorted(metrics["pictures"]) == ["curves.png", "predictions.png"]
    assert min(Image.open(tmp_path / "run" / "predictions.png").size) > 300
    assert script.main(argv) == 0
    assert "is finished" in capsys.readouterr().out


def test_stopped_and_resumed_it_ends_bit_for_bit_the_same(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pointmix.engine.finish._draw", lambda picture, path: None)
    argv = [f"--config={ROOT}/configs/detect/digit_objects.yaml", *TINY, "--data.limit=6", "--batch_size=3"]
    argv += ["--data.keep_ratio=0.5", "--data.mask=pixels"]
    assert script.main([*argv, f"--output_dir={tmp_path}/whole"]) == 0
    step, steps = loop.train_step, []

    def stopped(*args, **kwargs):
        steps.append(1)
        if len(steps) == 3:
            raise Stopped(15, "stopped by SIGTERM")
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", stopped)
    assert script.main([*argv, f"--output_dir={tmp_path}/parts"]) == 128 + 15
    monkeypatch.setattr(loop, "train_step", step)
    assert script.main([*argv, f"--output_dir={tmp_path}/parts"]) == 0
    assert "resuming from step" in capsys.readouterr().out
    whole, parts = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "parts"))
    assert whole == parts


@pytest.mark.parametrize(
    "argv, names",
    [
        (["--nonsense=1"], "nonsense"),
        (["--data.source=coco"], "data.root"),
        (["--data.source=coco", "--data.root=/no/such/folder"], "/no/such/folder"),
        (["--data.root=/no/such/folder"], "/no/such/folder"),
        (["--data.crop_size=x"], "data.crop_size: expected one of tuple[int, int], null, got x"),
        (["--data.source=nowhere"], "data.source 'nowhere': expected one of "),
        (["--data.jitter_scale=[0.5, 2]"], "data.jitter_scale without data.crop_size"),
        (["--model.init=/no/such/run", "--batch_size=4"], "no such file: /no/such/run"),
        (["--model.kwargs={anchor_sizes: [8]}"], "anchor_sizes"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(script, tmp_path, capsys, argv, names):
    assert script.main([*argv, f"--output_dir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and names in error
    assert not (tmp_path / "run" / "config.yaml").exists()
