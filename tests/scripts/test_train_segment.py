from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pointmix.data.segment.sources import scenes, scenes3d
from pointmix.engine import loop
from pointmix.engine.signals import Stopped

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--model.name=coc_tiny",
    "--model.kwargs={stem: [4, 4, 0], depths: [1, 1], dims: [16, 24], mlp_ratios: [2, 2], heads: 2, head_dim: 8, "
    "windows_per_side: [2, 1], centers_per_side: [2, 2], layer_scale: 1.0, neck_dim: 16, decoder_dim: 16}",
    *("--data.workers=0", "--data.cache=true", "--epochs=2", "--batch_size=4", "--optim.warmup_epochs=0"),
    *("--optim.opt=adamw", "--optim.lr=0.005", "--threads=1"),
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_segment", ROOT / "scripts" / "train_segment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def few(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(scenes, "COUNTS", {"train": 12, "test": 5})
    monkeypatch.setattr(scenes3d, "COUNTS", {"train": 8, "val": 3, "test": 5})
    monkeypatch.setattr(scenes3d, "POINTS", (150, 200))
    yield
    torch.set_num_threads(before)


def test_without_a_recipe_digits_are_labeled(script, tmp_path, capsys):
    argv = [f"--output_dir={tmp_path}/run", *TINY]
    assert script.main(argv) == 0
    out = capsys.readouterr().out
    assert "segment/digit_scenes" in out and "scenes, 11 classes" in out and "background" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["task"] == "segment" and metrics["steps"] == 4 and len(metrics["test"]["iou"]) == 11
    assert sum(map(sum, metrics["test"]["confusion"])) == 5 * 64 * 64
    assert sorted(metrics["pictures"]) == ["curves.png", "predictions.png"]
    assert min(Image.open(tmp_path / "run" / "predictions.png").size) > 300
    assert script.main(argv) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, flags",
    [
        ("digit_scenes", ["--data.keep_ratio=0.5", "--data.mask=pixels", "--loss.lovasz=1"]),
        ("scenes3d", ["--data.max_points=128", "--loss.class_weights=balanced", "--data.features=[]"]),
    ],
)
def test_stopped_and_resumed_it_ends_bit_for_bit_the_same(script, tmp_path, monkeypatch, capsys, name, flags):
    monkeypatch.setattr("pointmix.engine.finish._draw", lambda picture, path: None)
    argv = [f"--config={ROOT}/configs/segment/{name}.yaml", *TINY, *flags]
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


def test_a_classifier_of_images_is_a_start(script, tmp_path, capsys):
    from pointmix import create_model
    from pointmix.engine.checkpoint import save_model

    kwargs = dict(stem=[4, 4, 0], depths=[1, 1], dims=[16, 24], mlp_ratios=[2, 2], heads=2, head_dim=8)
    kwargs |= dict(windows_per_side=[2, 1], centers_per_side=[2, 2])
    info = {"task": "classify_images", "name": "coc_tiny", "kwargs": kwargs}
    save_model(tmp_path / "model.safetensors", create_model("coc_tiny", num_classes=4, **kwargs), info)
    argv = [*TINY, f"--model.init={tmp_path}", f"--output_dir={tmp_path}/run", "--max_steps=1"]
    assert script.main(argv) == 0
    out = capsys.readouterr().out
    assert "adapted" in out and "backbone.stages.*" in out and "left out" in out


@pytest.mark.parametrize(
    "argv, names",
    [
        (["--nonsense=1"], "nonsense"),
        (["--data.source=camvid"], "data.root"),
        (["--data.source=camvid", "--data.root=/no/such/folder"], "/no/such/folder"),
        (["--data.root=/no/such/folder"], "/no/such/folder"),
        (["--data.crop_size=x"], "data.crop_size: expected one of tuple[int, int], null, got x"),
        (["--data.label_map={a: 0}"], "data.label_map: expected one of dict[int, int], null, got {'a': 0}"),
        (["--data.cache=maybe"], "data.cache: expected bool, got maybe"),
        (["--data.source=nowhere"], "data.source 'nowhere': expected one of "),
        (["--data.grid_size=0.1"], "data.grid_size 0.1 is a setting of labeled clouds"),
        (["--model.init=/no/such/run", "--batch_size=4"], "no such file: /no/such/run"),
        (["--loss.cross_entropy=0"], "expected one above 0"),
        (["--loss.class_weights=[1, 2]", "--batch_size=4"], "loss.class_weights has 2 values for 11 classes"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(script, tmp_path, capsys, argv, names):
    assert script.main([*argv, f"--output_dir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and names in error
    assert not (tmp_path / "run" / "config.yaml").exists()
