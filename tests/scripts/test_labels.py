"""scripts/evaluate.py and scripts/predict.py on segmenters of images and of clouds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import resolve
from pointmix.engine.checkpoint import save_model
from pointmix.models.segmenter import create_segmenter
from pointmix.tasks.config import as_plain

SCRIPTS = Path(__file__).parents[2] / "scripts"
CLASSES = ["left", "right"]
SMALL = dict(
    depths=[1, 1], dims=[8, 8], mlp_ratios=[2, 2], heads=1, windows_per_side=[2, 1],
    centers_per_side=[2, 2], neck_dim=8, head_dim=8,
)  # fmt: skip


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_labels", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


predict, evaluate = script("predict"), script("evaluate")


def save_run(folder, cfg, *, in_chans, coord_dims):
    torch.manual_seed(0)
    given = {"coord_dims": coord_dims} if coord_dims == 3 else {}
    model = create_segmenter("coc_tiny", 2, in_chans=in_chans, **given, **SMALL)
    info = dict(task="segment", name="coc_tiny", kwargs=SMALL, classes=CLASSES, palette=[[255, 0, 0], [0, 0, 255]])
    info |= dict(categories=None, in_chans=in_chans, coord_dims=coord_dims, class_weights=None, data=as_plain(cfg))
    save_model(folder / "model.safetensors", model, info)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    for split, number in (("train", 1), ("val", 3)):
        for kind in ("images", "masks"):
            (folder / "data" / kind / split).mkdir(parents=True)
        for i in range(number):
            mask = np.repeat((np.arange(20) > 5 + i)[None].astype(np.uint8), 16, 0)  # (16, 20)
            pixels = (mask[..., None] * 150 + rng.integers(0, 100, (16, 20, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "data" / "images" / split / f"{i}.png")
            Image.fromarray(mask).save(folder / "data" / "masks" / split / f"{i}.png")
    for split in ("train", "test"):
        (folder / "scans" / split).mkdir(parents=True)
        for i in range(2):
            xyz = rng.random((60 + i, 3)).astype(np.float32)
            np.savez(folder / "scans" / split / f"{i}.npz", xyz=xyz, label=(xyz[:, 0] > 0.5).astype(np.uint8))
    images = SegmentDataConfig(source="folder", root=str(folder / "data"), classes=tuple(CLASSES))
    save_run(folder / "images_run", resolve(images), in_chans=3, coord_dims=2)
    clouds = SegmentDataConfig(source="files", root=str(folder / "scans"), classes=tuple(CLASSES), grid_size=0.2)
    save_run(folder / "clouds_run", resolve(clouds), in_chans=0, coord_dims=3)
    (folder / "empty").mkdir()
    return folder


def test_images_of_a_run_are_measured(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert evaluate(["images_run", "--out", "plain.json", "--device", "cpu"]) == 0
    result = json.loads(Path("plain.json").read_text())
    assert result["samples"] == 3 and sum(map(sum, result["confusion"])) == 3 * 16 * 20
    out = capsys.readouterr().out
    assert "mIoU" in out and "left" in out
    views = ["--sliding", "8", "8", "--stride", "8", "6", "--flip", "--scales", "1", "1.5"]
    assert evaluate(["images_run", *views, "--out", "views.json"]) == 0
    assert json.loads(Path("views.json").read_text())["scales"] == [1.0, 1.5]


def test_a_curve_of_visible_pixels(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert evaluate(["images_run", "--keep", "1", ".5", "--mask", "pixels", "--out", "curve.png"]) == 0
    whole, half = json.loads(Path("curve.json").read_text())
    assert sum(map(sum, half["confusion"])) * 2 == sum(map(sum, whole["confusion"]))
    with Image.open("curve.png") as picture:
        assert min(picture.size) > 300


def test_scenes_are_measured_at_all_points(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert evaluate(["clouds_run", "--votes", "2", "--out", "scenes.json"]) == 0
    assert sum(map(sum, json.loads(Path("scenes.json").read_text())["confusion"])) == 60 + 61


def test_a_folder_of_images_is_labeled_past_bad_files(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a/x.png", "photos/b/x.jpg", "photos/.hidden.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (200, 30, 30)).save(name)
    Path("photos/notes.txt").write_text("not an input")
    Path("photos/torn.png").write_bytes(b"\x89PNG")
    arguments = ["--run", str(folder / "images_run"), "photos", "--out", "photos/labels", "--device", "cpu"]
    for _ in range(2):  # what the first call wrote is no input of the second
        assert predict(arguments) == 2
        captured = capsys.readouterr()
        assert "2 predicted, 1 failed" in captured.out and "labels of 2 files in photos/labels" in captured.out
        assert captured.out.count("%") >= 2 and "photos/a/x.png" in captured.out
        first, last = captured.err.splitlines()
        assert (
            first.startswith("error: cannot read image photos/torn.png")
            and last == "error: 1 of 3 files have no prediction"
        )
        names = sorted(path.name for path in Path("photos/labels").iterdir())
        assert names == ["x_2_labels.png", "x_2_overlay.png", "x_labels.png", "x_overlay.png"]
    with Image.open("photos/labels/x_labels.png") as picture:
        assert picture.mode == "P" and picture.getpalette()[:6] == [255, 0, 0, 0, 0, 255]


def test_a_folder_of_clouds(folder, monkeypatch, capsys, tmp_path):
    pytest.importorskip("plyfile")
    monkeypatch.chdir(folder)
    assert predict(["--run", "clouds_run", "scans/test", "--out", str(tmp_path / "out"), "--votes", "2"]) == 0
    assert "2 predicted, 0 failed" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.ply", "1.ply"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["empty"], "no image below the folder empty"),
        (["empty/none.png"], "no image file empty/none.png"),
        (["scans/test/0.npz"], "0.npz is no image, images_run/model.safetensors takes images"),
        (["data/images/val/0.png", "--out", "plain.txt"], "plain.txt is a file, expected a folder"),
        (["data/images/val/0.png", "--category", "left"], "--category left: the network has no categories"),
        (["data/images/val/0.png", "--clusters", "c.png"], "--clusters is a flag of"),
    ],
)
def test_errors_are_one_line(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    Path("plain.txt").write_text("a file")
    assert predict(["--run", "images_run", *arguments, "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0] and all(line.startswith("error: ") for line in lines)
