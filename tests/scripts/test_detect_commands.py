"""evaluate.py and predict.py on a small detector with made-up weights."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix.engine.checkpoint import save_model
from tests.data.detect import toy
from tests.tasks.detect.test_task import TINY

SCRIPTS = Path(__file__).parents[2] / "scripts"
INFO = {"task": "detect", "name": "coc_tiny", "kwargs": TINY, "classes": list(toy.CLASSES), "category_ids": [7, 3, 20]}
INFO |= {"in_chans": 3, "has_masks": True, "data": {"source": "toy_objects", "short_side": 20, "max_side": 40}}


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    torch.manual_seed(0)
    model = pointmix.create_detector("coc_tiny", 3, **TINY)
    torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight)
    save_model(folder / "run" / "model.safetensors", model, INFO)
    save_model(folder / "two" / "model.safetensors", model, INFO | {"classes": ["a", "b"], "category_ids": [1, 2]})
    other = pointmix.create_detector("coc_tiny", 3, masks=False, **TINY)
    save_model(folder / "boxes" / "model.safetensors", other, INFO | {"has_masks": False})
    renamed = INFO | {"classes": ["x", "y", "z"]}
    save_model(folder / "renamed" / "model.safetensors", model, renamed)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    (folder / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(folder / "photos" / name)
    return folder


def run(main, capsys, *argv):
    code = main([str(arg) for arg in argv])
    done = capsys.readouterr()
    return code, " ".join(done.out.split()), done.err


def test_runs_are_evaluated(folder, tmp_path, capsys):
    out = tmp_path / "r.csv"
    argv = (folder / "run", folder / "boxes", "--out", out, "--device", "cpu")
    code, text, err = run(script("evaluate"), capsys, *argv)
    assert code == 0 and not err and "run, mask" in text and "boxes, mask" not in text and str(out) in text
    assert len(out.read_text().splitlines()) == 1 + 2 * 4
    coco = tmp_path / "found.json"
    code, text, err = run(script("evaluate"), capsys, folder / "run", "--coco_json", coco, "--data.short_side", 24)
    assert code == 0 and not err
    rows = json.loads(coco.read_text())
    assert rows and {row["category_id"] for row in rows} <= {7, 3, 20} and "counts" in rows[0]["segmentation"]


@pytest.mark.parametrize(
    "name, argv, message",
    [
        ("two", [], "for other classes|shape|size"),
        ("renamed", [], "knows 3 classes .x, y, z., the data has 3 classes .a, b, c."),
        ("boxes", ["--sliding", "4", "4"], "--sliding is a flag of segment"),
        ("boxes", ["--keep", "2"], "--keep must be"),
        ("boxes", ["--out", "/proc/none/r.json"], "/proc/none"),
        ("boxes", ["--coco_json", "/proc/none/r.json"], "/proc/none"),
        ("none", [], "none"),
    ],
)
def test_wrong_evaluations_end_with_one_line(folder, capsys, name, argv, message):
    code, _, err = run(script("evaluate"), capsys, folder / name, *argv)
    assert code == 2 and re.search(message, err) and len(err.splitlines()) == 1, err


def test_a_folder_is_predicted_past_bad_files(folder, tmp_path, capsys):
    photos, out = folder / "photos", tmp_path / "out"
    (photos / "torn.png").write_bytes((photos / "a.png").read_bytes()[:200])
    code, text, err = run(script("predict"), capsys, "--run", folder / "run", photos, "--out", out, "--score", 0)
    (photos / "torn.png").unlink()
    assert code == 2 and "2 predicted, 1 failed" in text and "torn.png" in err
    assert "best score" in text and "in 2 files in" in text
    found = json.loads((out / "detections.json").read_text())
    assert len(found["images"]) == 2 and {path.name for path in out.iterdir()} == {
        "a_overlay.png", "b_overlay.png", "detections.json",
    }  # fmt: skip
    assert all(row["score"] >= 0 and row["segmentation"]["size"] == [30, 45] for row in found["annotations"])
    code, text, err = run(script("predict"), capsys, "--run", folder / "run", photos, "--score", 3)
    assert code == 2 and "--score must be" in err and len(err.splitlines()) == 1


def test_out_may_be_a_file_of_boxes(folder, tmp_path, capsys):
    out = tmp_path / "boxes.csv"
    code, text, _ = run(
        script("predict"), capsys, "--run", folder / "run", folder / "photos", "--out", out, "--score", 0
    )
    assert code == 0 and f"in 2 files in {out}" in text and [*tmp_path.iterdir()] == [out]
    assert out.read_text().startswith("file,") and "width,height" in out.read_text().splitlines()[0]
