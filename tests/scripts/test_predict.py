"""scripts/predict.py on a small network with made-up weights."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.transforms import unit_sphere
from pointmix.engine.checkpoint import save_model
from pointmix.engine.inference import open_model
from pointmix.engine.predictions import input_files
from pointmix.io import read_image
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_images import files
from pointmix.tasks.classify_images.files import whole_image
from pointmix.tasks.classify_points.voting import Voting

SCRIPT = Path(__file__).parents[2] / "scripts" / "predict.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("predict_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    kwargs = dict(dims=[8, 8, 8, 8], depths=[1, 1, 1, 1], heads=1, head_dim=4)
    torch.manual_seed(0)
    model = pointmix.create_model("coc_tiny", num_classes=3, **kwargs)
    torch.nn.init.normal_(model.head.weight)
    info = dict(task="classify_images", name="coc_tiny", kwargs=kwargs, classes=["cat", "dog", "[red]fox"])
    info |= dict(
        in_chans=3,
        img_size=32,
        mean=[0.5] * 3,
        std=[0.2] * 3,
        data={"source": "folder", "img_size": 32, "crop_pct": 1.0},
    )
    save_model(folder / "run" / "model.safetensors", model, info)
    still = pointmix.create_model("coc_tiny", num_classes=3, cluster=False, **kwargs)
    save_model(folder / "still" / "model.safetensors", still, info | {"kwargs": kwargs | {"cluster": False}})
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask * 0).save(folder / "zero.png")
    Image.fromarray(mask[:9]).save(folder / "small.png")
    (folder / "text.png").write_text("no image")
    (folder / "text.npy").write_text("no array")
    kwargs = dict(
        dims=[8, 8],
        depths=[1, 1],
        mlp_ratios=[2, 2],
        windows_per_side=[2, 1],
        centers_per_side=[2, 2],
        heads=1,
        head_dim=4,
    )
    model = pointmix.create_model("coc_tiny", num_classes=3, in_chans=0, coord_dims=3, **kwargs)
    torch.nn.init.normal_(model.head.weight)
    info = dict(task="classify_points", name="coc_tiny", kwargs=kwargs, classes=["box", "ball", "cone"], in_chans=0)
    cfg = PointDataConfig(points=40, normalize="unit_sphere")
    save_model(folder / "clouds" / "model.safetensors", model, info | {"data": asdict(cfg)})
    np.save(folder / "many.npy", rng.normal(size=(2, 30, 3)).astype(np.float32))
    np.savez(folder / "one.npz", pos=rng.normal(size=(35, 3)).astype(np.float32), colors=rng.random((35, 3)))
    return folder


def test_the_table_shows_the_classes_in_order(main, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["--run", "run", "a.png", "b.png", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    model, info = open_model(run="run")
    cfg = get_task("classify_images").data_config(info)
    for name in ("a.png", "b.png"):
        with torch.no_grad():
            chances = model(whole_image(read_image(name, 3), cfg)[None]).softmax(1)[0]
        at = shown.index(name)
        for i in chances.argsort(descending=True).tolist():
            at = shown.index(info["classes"][i], at)
            assert f"{chances[i]:.1%}" in shown[at : at + 60]


def test_weights_may_be_named_and_k_limits(main, folder, capsys):
    assert main(["--run", str(folder / "run/model.safetensors"), str(folder / "a.png"), "--topk", "1"]) == 0
    assert capsys.readouterr().out.count("%") == 1


def test_a_mask_changes_the_answer_and_clusters_are_drawn(main, folder, capsys):
    run, image, png = str(folder / "run"), str(folder / "a.png"), folder / "clusters.png"
    assert main(["--run", run, image]) == 0
    whole = capsys.readouterr().out
    assert main(["--run", run, image, "--mask", str(folder / "mask.png"), "--clusters", str(png)]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if "%" in line] != [line for line in whole.splitlines() if "%" in line]
    with Image.open(png) as picture:
        assert min(picture.size) > 200


def test_masked_pixels_are_where_the_model_expects_them(main, folder, monkeypatch):
    model, info = open_model(run=str(folder / "run"))
    kwargs = info["kwargs"] | {"coord_mode": "exclusive"}
    save_model(folder / "exclusive" / "model.safetensors", model, info | {"kwargs": kwargs})
    modes, original = [], files.masked_image

    def noted(*args, coord_mode):
        modes.append(coord_mode)
        return original(*args, coord_mode=coord_mode)

    monkeypatch.setattr(files, "masked_image", noted)
    for run in ("run", "exclusive"):
        assert main(["--run", str(folder / run), str(folder / "a.png"), "--mask", str(folder / "mask.png")]) == 0
    assert modes == ["inclusive", "exclusive"]


def test_clouds_are_seen_as_in_evaluation(main, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["--run", "clouds", "many.npy", "--index", "1", "--device", "cpu", "--clusters", "drawn.png"]) == 0
    shown = capsys.readouterr().out
    pos = torch.from_numpy(np.load("many.npy"))[1]
    pos = pos - pos.mean(0)
    with torch.no_grad():
        chances = open_model(run="clouds")[0](PointSet.from_points(pos / pos.norm(dim=1).max())).softmax(1)[0]
    at = 0
    for i in chances.argsort(descending=True).tolist():
        at = shown.index(["box", "ball", "cone"][i], at)
        assert f"{chances[i]:.1%}" in shown[at : at + 60]
    with Image.open("drawn.png") as picture:
        assert min(picture.size) > 200
    assert main(["--run", "clouds", "one.npz", "one.npz", "--topk", "1", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("%") == 1  # once, however often it is named


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--run", "nowhere", "a.png"], "no such file"),
        (["--run", "run", "none.png"], "no image file none.png"),
        (["--run", "run", "text.png"], "cannot read image text.png"),
        (["--run", "run", "a.png", "--mask", "small.png"], "small.png: mask is 9x50, the image is 40x50"),
        (["--run", "run", "a.png", "--mask", "zero.png"], "zero.png: mask hides every pixel"),
        (["--run", "run", "a.png", "--mask", "none.png"], "no mask file none.png"),
        (["--run", "run", "a.png", "--topk", "0"], "--topk must be at least 1"),
        (["--run", "run"], "FILE"),
        (["--run", "run", "a.png", "--device", "nonsense"], "no device 'nonsense' here"),
        (["a.png"], "one of --run and --model"),
        (["--run", "a.png", "a.png"], "a.png is not a safetensors file"),
        (["--model", "no_such_model", "a.png"], "no model 'no_such_model'"),
        (["--run", "run", "a.png", "--clusters", "run"], "cannot write run"),
        (["--run", "run", "a.png", "--import", "no_such_module"], "--import no_such_module: No module named"),
        (
            ["--run", "run", "a.png", "--index", "1"],
            "--index is a flag of classify_points, segment; run is of classify_images",
        ),
        (
            ["--run", "run", "a.png", "--columns", "rgb"],
            "--columns is a flag of classify_points, segment; run is of classify_images",
        ),
        (["--run", "clouds", "a.png"], "a.png is an image, clouds/model.safetensors takes clouds"),
        (["--run", "clouds", "none.ply"], "no file none.ply"),
        (["--run", "clouds", "text.npy"], "cannot read text.npy"),
        (["--run", "clouds", "many.npy"], "it holds 2 clouds, give the index of one"),
        (
            ["--run", "clouds", "many.npy", "--index", "1", "--mask", "mask.png"],
            "--mask is a flag of classify_images, segment, detect; clouds is of classify_points",
        ),
    ],
)
def test_errors_are_one_line(main, folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.parametrize(
    "run, files, bad",
    [
        ("run", ["a.png", "none.png", "text.png", "b.png"], {"none.png": "no image", "text.png": "cannot read image"}),
        ("clouds", ["one.npz", "nan.npy", "text.npy"], {"nan.npy": "NaN .* at 1 of 30 points", "text.npy": "cannot"}),
        ("clouds", ["a.png", "one.npz"], {"a.png": "is an image"}),
        ("run", ["none.png", "text.png"], {"none.png": "no image", "text.png": "cannot read image"}),
    ],
)
def test_a_bad_file_does_not_end_the_others(main, folder, capsys, monkeypatch, run, files, bad):
    monkeypatch.chdir(folder)
    cloud = np.load("many.npy")[0]
    cloud[7, 1] = np.nan
    np.save("nan.npy", cloud)
    assert main(["--run", run, *files, "--topk", "1", "--device", "cpu", "--clusters", "some.png"]) == 2
    captured = capsys.readouterr()
    good = [file for file in files if file not in bad]
    rows = [line for line in captured.out.splitlines() if "%" in line]
    assert [file for row in rows for file in files if file in row] == good
    lines = captured.err.splitlines()
    assert lines.pop() == f"error: {len(bad)} of {len(files)} files have no prediction"
    for line, (file, why) in zip(lines, bad.items(), strict=True):
        assert line.startswith("error: ") and file in line and re.search(why, line)
    assert Path("some.png").exists() == bool(good)
    Path("some.png").unlink(missing_ok=True)


# ---- files in, tables out -------------------------------------------------------------------------------------------


@pytest.fixture
def photos(folder, tmp_path, monkeypatch):
    """photos/a.png, photos/deep/b.png, one that is damaged, a link to nowhere, a cycle and junk."""
    monkeypatch.chdir(tmp_path)
    for path in ("photos/a.png", "photos/deep/b.png", "photos/@eaDir/c.png", "photos/.d.png"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes((folder / "a.png").read_bytes())
    Path("photos/bad.png").write_text("no image")
    Path("photos/notes.txt").write_text("no image")
    Path("photos/gone.png").symlink_to("nowhere.png")
    Path("photos/deep/up").symlink_to("..")
    return ["photos/a.png", "photos/bad.png", "photos/deep/b.png", "photos/gone.png"]


def test_a_folder_becomes_a_csv_file_in_spite_of_bad_files(main, folder, photos, capsys):
    arguments = ["--run", str(folder / "run"), "--device", "cpu", "--topk", "2", "--out", "out/classes.csv"]
    assert main([*arguments, "photos"]) == 2
    told = capsys.readouterr()
    assert "predictions for 2 files in out/classes.csv\n2 predicted, 2 failed\n" in told.out and "┃" not in told.out
    assert [line.split(":")[0] for line in told.err.splitlines()] == ["error"] * 3
    assert "photos/bad.png" in told.err and "photos/gone.png" in told.err
    lines = list(csv.reader(Path("out/classes.csv").open()))
    assert lines[0] == ["file", "class", "probability"] and len(lines) == 5
    assert [line[0] for line in lines[1:]] == ["photos/a.png"] * 2 + ["photos/deep/b.png"] * 2
    assert float(lines[1][2]) >= float(lines[2][2]) > 0
    assert main([*arguments, "photos/a.png", "photos/deep"]) == 0
    assert {line[1] for line in csv.reader(Path("out/classes.csv").open())} <= {"class", "cat", "dog", "[red]fox"}


def test_json_names_the_files_that_failed(main, folder, photos):
    assert main(["--run", str(folder / "run"), "photos", "--device", "cpu", "--out", "classes.JSON"]) == 2
    entries = {entry["file"]: entry for entry in json.loads(Path("classes.JSON").read_text())}
    assert sorted(entries) == photos
    assert "photos/bad.png" in entries["photos/bad.png"]["error"] and "predictions" not in entries["photos/bad.png"]
    found = entries["photos/a.png"]["predictions"]
    assert sum(row["probability"] for row in found) == pytest.approx(1) and len(found) == 3
    assert found == entries["photos/deep/b.png"]["predictions"]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("photos/*.png", [0, 1, 3]),
        ("photos/**/*.png", [0, 1, 2, 3]),
        ("phot[o]s", [0, 1, 2, 3]),
        ("photos/d*", [2]),
        ("phot*/**/deep/*.png", [2]),
        ("photos/**", [0, 1, 2, 3]),
        ("photos/?.png", [0]),
    ],
)
def test_patterns(photos, pattern, expected):
    assert sorted(input_files([pattern], None)[0]) == [photos[i] for i in expected]
    assert input_files(["photos/a.png", pattern, pattern], None)[0].count("photos/a.png") == 1


def test_of_a_folder_the_other_kind_is_left_out_and_counted(main, folder, photos, capsys):
    Path("photos/bad.png").unlink()
    Path("photos/gone.png").unlink()
    np.save("photos/scan.npy", np.random.default_rng(0).normal(size=(50, 3)))
    assert main(["--run", str(folder / "run"), "photos", "--device", "cpu", "--topk", "1"]) == 0
    told = capsys.readouterr().out
    assert "2 predicted, 0 failed\n1 left out, of another kind, the first photos/scan.npy" in told
    assert main(["--run", str(folder / "clouds"), "photos", "--device", "cpu", "--topk", "1"]) == 0
    assert "2 left out, of another kind, the first photos/a.png" in capsys.readouterr().out
    assert main(["--run", str(folder / "clouds"), "photos", "photos/a.png", "--device", "cpu"]) == 2  # named: an error
    assert "photos/a.png is an image" in capsys.readouterr().err
    assert main(["--run", str(folder / "clouds"), "photos/deep"]) == 2
    assert "no cloud below the folder photos/deep, expected files ending in .h5" in capsys.readouterr().err


def test_a_file_may_have_the_signs_of_a_pattern(photos):
    Path("photos/a.png").rename("photos/a[1].png")
    assert input_files(["photos/a[1].png"], None)[0] == ["photos/a[1].png"]
    assert input_files(["photos/*.jpg", "photos/?[1].png"], None)[0] == ["photos/*.jpg", "photos/?[1].png"]


def test_a_pattern_that_matches_nothing_is_an_error_of_its_own(main, folder, photos, capsys):
    assert main(["--run", str(folder / "run"), "photos/*.jpg", "photos/a.png", "--device", "cpu"]) == 2
    told = capsys.readouterr()
    assert "no image file photos/*.jpg" in told.err and "1 predicted, 1 failed" in told.out


@pytest.mark.parametrize("out, message", [("x.txt", "--out x.txt: expected a file that ends in .csv or .json"),
                                          ("photos/a.png/x.csv", "is a file, expected a folder")])  # fmt: skip
def test_a_table_that_cannot_be_written(main, folder, photos, capsys, out, message):
    assert main(["--run", str(folder / "run"), "photos/a.png", "--out", out]) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_clouds(main, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    out = tmp_path / "classes.json"
    assert main(["--run", "clouds", "one.npz", "--topk", "1", "--device", "cpu", "--out", str(out)]) == 0
    (entry,) = json.loads(out.read_text())
    assert entry["file"] == "one.npz" and entry["predictions"][0].keys() == {"class", "probability"}


def test_a_file_that_fits_into_no_memory_is_named(main, folder, capsys, monkeypatch):
    def explode(*_):
        raise MemoryError

    monkeypatch.setattr(files, "whole_image", explode)
    assert main(["--run", str(folder / "run"), str(folder / "a.png")]) == 2
    assert capsys.readouterr().err == f"error: {folder / 'a.png'}: it needs more memory than there is\n"
    assert main(["--run", str(folder / "run"), str(folder / "a.png"), "\x1b[31m.png"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--run", "still"], ["--model", "test_vit"]])
def test_a_network_without_clusters_predicts_like_any_other(main, folder, capsys, monkeypatch, given):
    monkeypatch.chdir(folder)
    assert main([*given, "a.png", "b.png", "--topk", "1", "--device", "cpu", "--clusters", "none.png"]) == 0
    assert capsys.readouterr().out.count("%") == 2
    with Image.open("none.png") as picture:  # it says that no block clusters
        assert min(picture.size) > 200
    Path("none.png").unlink()


def test_a_mask_needs_a_model_of_points(main, folder, capsys):
    assert main(["--model", "test_vit", str(folder / "a.png"), "--mask", str(folder / "mask.png")]) == 2
    assert "--mask needs a model of points" in capsys.readouterr().err


def test_every_point_of_a_cloud_votes_and_another_unit_is_warned_of(main, folder, capsys):
    """A thousand points where the run takes 40; the second file is not warned of again."""
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(1000, 3)).astype(np.float32)
    for name in ("a.npy", "b.npy"):
        np.save(folder / name, xyz * 1000)
    model, info = open_model(run=str(folder / "clouds"))
    with torch.no_grad():
        chances = Voting(model, votes=None, points=40, normalize=unit_sphere)(PointSet.from_points(xyz)).exp()[0]
    keep = {key: value for key, value in info.items() if key != "path"}
    save_model(folder / "sized" / "model.safetensors", model, keep | {"extent": 5.0})
    files = [str(folder / name) for name in ("a.npy", "b.npy")]
    assert main(["--run", str(folder / "sized"), *files, "--topk", "1", "--device", "cpu"]) == 0
    found = capsys.readouterr()
    assert found.out.count(f"{chances.max():.1%}") == 2
    assert found.err.count("from corner to corner, the training data 5; are the units the same?") == 1
    assert main(["--run", str(folder / "sized"), files[0], "--votes", "0", "--device", "cpu"]) == 2
    assert "votes must be at least 1, got 0" in capsys.readouterr().err
