"""scripts/evaluate.py on small image folders."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix.data.images import splits as images
from pointmix.engine.checkpoint import save_model
from pointmix.engine.inference import open_model
from pointmix.io import read_image
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_images.files import whole_image

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
CLASSES = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on an image folder of which only the test split is left."""
    folder = tmp_path_factory.mktemp("evaluate")
    kwargs = dict(dims=[8, 8, 8, 8], depths=[1, 1, 1, 1], heads=1, head_dim=4)
    torch.manual_seed(0)
    model = pointmix.create_model("coc_tiny", num_classes=3, **kwargs)
    torch.nn.init.normal_(model.head.weight)
    info = dict(task="classify_images", name="coc_tiny", kwargs=kwargs, classes=CLASSES, in_chans=3, img_size=32)
    info |= dict(mean=[0.5] * 3, std=[0.2] * 3)
    info["data"] = {"source": "folder", "root": str(folder / "images"), "img_size": 32, "mean": [0.5] * 3}
    info["data"]["std"] = [0.2] * 3
    save_model(folder / "run" / "model.safetensors", model, info)
    rng = np.random.default_rng(0)
    for root, classes in (("images", CLASSES), ("others", [*CLASSES, "dog"])):
        for name in classes:
            (folder / root / "val" / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (36, 44, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / root / "val" / name / f"{i}.png")
    return folder


def test_a_run_is_measured_on_its_own_test_split(main, folder, capsys, monkeypatch):
    opened, original = [], images.open_split
    monkeypatch.setattr(images, "open_split", lambda cfg, split: opened.append(split) or original(cfg, split))
    out = folder / "result.json"
    assert main(["--run", str(folder / "run"), "--out", str(out), "--batch_size", "4", "--device", "cpu"]) == 0
    result = json.loads(out.read_text())
    assert opened == [None]  # the test split, once

    model, info = open_model(run=str(folder / "run"))
    cfg = get_task("classify_images").data_config(info)
    files = sorted((folder / "images" / "val").glob("*/*.png"))
    pixels = torch.stack([whole_image(read_image(file, 3), cfg) for file in files])
    targets = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    with torch.no_grad():
        logits = model(pixels)
    assert result["images"] == 9 and result["skipped"] == []
    assert result["top1"] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    assert result["top5"] == 1
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-5)
    shown = capsys.readouterr().out
    assert f"{100 * result['top1']:.2f} %" in shown and f"{result['loss']:.4f}" in shown


def test_damaged_images_are_named_and_left_out(main, folder, tmp_path, capsys):
    for file in sorted((folder / "images").rglob("*.png")):
        copy = tmp_path / file.relative_to(folder / "images")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes()[: 200 if file.name == "1.png" and "bee" in str(file) else None])
    out = tmp_path / "result.json"
    assert main(["--run", str(folder / "run"), "--data.root", str(tmp_path), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["images"] == 8 and result["skipped"][0][0].endswith("bee/1.png")
    assert "bee/1.png" in capsys.readouterr().err


def test_a_named_model_with_a_checkpoint(main, folder, tmp_path, capsys):
    model = pointmix.create_model("test_vit", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    arguments = ["--model", "test_vit", "--data.source", "folder", "--data.root", str(folder / "images")]
    assert main([*arguments, "--checkpoint", str(tmp_path / "weights.pth"), "--out", str(tmp_path / "a.json")]) == 0
    assert "random" not in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["weights"].endswith("weights.pth")
    assert main(arguments) == 0
    assert "random weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--run", "run", "--data.root", "others"], "knows 3 classes (ant, bee, cow), the data has 4 classes"),
        (["--run", "run", "--data.root", "nowhere"], "data.root"),
        (["--run", "nowhere"], "no such file"),
        (["--run", "run", "--data.wrong", "1"], "data.wrong"),
        (["--run", "run", "--batch_size", "many"], "batch_size"),
        (["--run", "run", "--batch_size", "0"], "batch size 0"),
        (["--run", "run", "--kwargs", "[1]"], "expected arguments by name"),
        (["--run", "run", "--task", "classify_points"], "is a run of classify_images, got --task classify_points"),
        (["--run", "run", "--device", "nonsense"], "no device 'nonsense' here"),
        (["--run", "run", "--device", "meta"], "no device 'meta' here"),
        ([], "one of --run and --model"),
        (["run", "--model", "test_vit"], "one of --run and --model"),
        (["run", "run", "--checkpoint", "a.pth"], "a run has its own weights"),
        (["run", "--keep", "1", "0"], "data.keep_ratio must be above 0 and at most 1, got 0.0"),
        (["run", "--keep", "half"], "half"),
        (["run", "--keep", "0.5", "--mask", "holes"], "data.mask 'holes': expected one of patches"),
        (["run", "--data.mask_root", "run"], "9 of 9 images have no mask"),
        (["--model", "vit_tiny_patch16_224", "--data.root", "images", "--keep", "0.5"], "takes whole ones only"),
        (["--model", "test_vit", "--data.root", "images", "--data.img_size", "9"], "does not take images of 3x9x9"),
        (["--model", "no_such_model", "--data.root", "images"], "no model 'no_such_model'"),
        (["--model", "test_vit", "--data.root", "images", "--checkpoint", "none.pth"], "no checkpoint file none.pth"),
        (["--model", "coc_tiny", "--data.root", "images", "--checkpoint", ""], "--checkpoint is empty, expected"),
        (["--model", "test_vit", "--data.root", "images", "--checkpoint", "run/model.safetensors"], "does not fit"),
        (["--model", "coc_tiny", "--data.root", "images", "--checkpoint", "run/model.safetensors"], "does not fit"),
        (["run", "--votes", "3"], "--votes is a flag of classify_points, segment; run is of classify_images"),
        (["run", "--kwargs", "heads"], "--kwargs"),
        (["run", "--import", "no_such_module"], "--import no_such_module: No module named 'no_such_module'"),
        (["--model", "coc_tiny", "--task", "count_points"], "no task 'count_points' is registered, expected one of"),
    ],
)
def test_errors_are_one_line(main, folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_a_curve_over_several_runs(main, folder, tmp_path, capsys):
    model, info = open_model(run=str(folder / "run"))
    for p in model.parameters():
        p.data.mul_(1.1)
    save_model(tmp_path / "other" / "model.safetensors", model, {k: v for k, v in info.items() if k != "path"})
    runs = [str(folder / "run"), str(tmp_path / "other")]
    out = tmp_path / "curve.png"
    assert main([*runs, "--keep", "1", ".5", ".25", "--mask", "pixels", "--out", str(out), "--batch_size", "4"]) == 0
    with Image.open(out) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    results = json.loads(out.with_suffix(".json").read_text())
    expected = [(name, keep) for name in ("run", "other") for keep in (1, 0.5, 0.25)]
    assert [(r["name"], r["keep"]) for r in results] == expected
    assert [r["mask"] for r in results] == [None, "pixels", "pixels"] * 2 and results[0]["images"] == 9
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in rows] == [r["top1"] for r in results]
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("run", "other", "0.25", f"{100 * results[-1]['top1']:.2f} %"))

    assert main([runs[0], "--out", str(tmp_path / "whole.json")]) == 0
    assert json.loads((tmp_path / "whole.json").read_text())["loss"] == pytest.approx(results[0]["loss"], rel=1e-6)
    arguments = [runs[0], "--keep", ".25", "--mask", "pixels", "--out", str(out), "--batch_size", "9"]
    assert main(arguments) == 0
    again = json.loads(out.with_suffix(".json").read_text())
    assert again[0]["loss"] == pytest.approx(results[2]["loss"], rel=1e-5)  # the masks do not depend on the batches


def test_several_runs_without_a_curve(main, folder, tmp_path, capsys):
    out = tmp_path / "both.json"
    run = str(folder / "run")
    assert main([run, f"{run}/model.safetensors", "--out", str(out)]) == 0
    first, second = json.loads(out.read_text())
    assert first["loss"] == second["loss"] and first["name"] == run
    assert capsys.readouterr().out.count(f"{first['loss']:.4f}") == 2


def test_a_run_on_partial_images_is_measured_on_them(main, folder, tmp_path):
    model, info = open_model(run=str(folder / "run"))
    info["data"] = info["data"] | {"keep_ratio": [0.2, 0.4], "mask": "patches"}
    save_model(tmp_path / "run" / "model.safetensors", model, {k: v for k, v in info.items() if k != "path"})
    losses = []
    for name, flags in (("a", []), ("b", ["--data.keep_ratio", "[0.2,0.4]"]), ("c", ["--data.keep_ratio", "1.0"])):
        run = tmp_path / "run" if name == "a" else folder / "run"
        out = tmp_path / f"{name}.json"
        assert main([str(run), "--out", str(out), *flags]) == 0
        losses.append(json.loads(out.read_text())["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and abs(losses[0] - losses[2]) > 1e-4


def test_other_arguments_of_the_model(main, folder, capsys):
    argv = ["--run", str(folder / "run"), "--device", "cpu", "--keep", "0.3", "--mask", "pixels", "--out"]
    for name, more in (("zero", []), ("near", ["--kwargs", '{"keep_cells": "occupied", "absent": "nearest"}'])):
        assert main([*argv, str(folder / f"{name}.png"), *more]) == 0
    zero, near = (json.loads((folder / f"{name}.json").read_text())[0] for name in ("zero", "near"))
    assert zero["loss"] != near["loss"]
    capsys.readouterr()
    assert main([*argv, str(folder / "x.png"), "--kwargs", '{"nonsense": 1}']) == 2
    assert "nonsense" in capsys.readouterr().err
