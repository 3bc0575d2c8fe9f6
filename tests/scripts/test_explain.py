"""scripts/explain.py on images, RGB-D frames and clouds, with small networks of made-up weights."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix.data.clouds.config import PointDataConfig
from pointmix.engine.checkpoint import save_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "explain.py"
SMALL = dict(
    dims=[8, 8], depths=[1, 1], mlp_ratios=[2, 2], windows_per_side=[2, 1], centers_per_side=[2, 2], heads=1, head_dim=4
)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("explain_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of images (images), of clouds normalized to the sphere (clouds), of colored ones (colored) and of ones
    with normals (normals), and files."""
    folder = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    info = dict(task="classify_images", name="coc_tiny", kwargs=SMALL, classes=["cat", "dog"], in_chans=3, img_size=32)
    info |= dict(mean=[0.5], std=[0.2])
    model = pointmix.create_model("coc_tiny", num_classes=2, **SMALL)
    save_model(folder / "images" / "model.safetensors", model, info | {"data": {"source": "folder", "img_size": 32}})
    for name, in_chans, features in (("clouds", 0, ()), ("colored", 3, ("rgb",)), ("normals", 3, ("normal",))):
        model = pointmix.create_model("coc_tiny", num_classes=2, in_chans=in_chans, coord_dims=3, **SMALL)
        cfg = PointDataConfig(
            points=100, normalize="unit_sphere", features=features, feature_scale=dict.fromkeys(features, 1.0)
        )
        info = dict(task="classify_points", name="coc_tiny", kwargs=SMALL, classes=["box", "ball"], in_chans=in_chans)
        save_model(folder / name / "model.safetensors", model, info | {"data": asdict(cfg)})
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / "a.png")
    depth = rng.integers(500, 900, (24, 32), dtype=np.uint16)
    depth[:5] = 0
    Image.fromarray(depth).save(folder / "depth.png")
    Image.fromarray(depth[:9]).save(folder / "small.png")
    Image.fromarray((depth > 700).astype(np.uint8)).save(folder / "mask.png")
    pos, colors, normals = rng.normal(size=(300, 3)).astype(np.float32) + 7, rng.random((300, 3)), np.eye(3)[[0] * 300]
    np.savez(folder / "cloud.npz", pos=pos, colors=colors)
    np.savez(folder / "both.npz", pos=pos, colors=colors, normals=normals)
    np.savez(folder / "normal.npz", pos=pos, normals=normals)
    np.save(folder / "wide.npy", np.concatenate([pos, colors], axis=1))
    np.save(folder / "many.npy", rng.normal(size=(2, 50, 3)).astype(np.float32))
    np.save(folder / "flat.npy", rng.normal(size=(50, 2)).astype(np.float32))
    return folder


CAMERA = ["--intrinsics", "30", "30", "15.5", "11.5"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.png", "--run", "images/model.safetensors", "--mask", "mask.png"],
        ["a.png", "--run", "colored", "--depth", "depth.png", *CAMERA, "--mask", "mask.png"],
        ["a.png", "--model", "pointmlp_elite", "--depth", "depth.png", *CAMERA],
        ["cloud.npz", "--run", "colored", "--up=-z"],
        ["many.npy", "--index", "1"],
        ["a.png", "--model", "test_vit"],  # says that no block clusters
    ],
)
def test_a_picture_is_drawn(main, folder, tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    out = tmp_path / "out.png"
    assert main([*arguments, "--out", str(out), "--device", "cpu"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == f"drawn in {out}\n"
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_a_cloud_is_seen_as_its_run_sees_it(main, folder, tmp_path, monkeypatch):
    import pointmix.explain

    seen = []
    monkeypatch.setattr(pointmix.explain, "draw_clouds", lambda model, points, path, **_: seen.append(points))
    for run in ("clouds", "colored"):
        assert main([str(folder / "cloud.npz"), "--run", str(folder / run), "--out", str(tmp_path / "x.png")]) == 0
    assert [s.feat.shape for s in seen] == [(100, 0), (100, 3)]  # as many as the run takes, colors if it takes them
    assert seen[0].pos.mean().abs() < 1e-5 and 0.999 < seen[0].pos.norm(dim=1).max() < 1.001


def test_another_unit_and_points_that_are_not_finite_are_named(main, folder, tmp_path, capsys, monkeypatch):
    import pointmix.explain
    from pointmix.engine.checkpoint import load_run

    seen = []
    monkeypatch.setattr(pointmix.explain, "draw_clouds", lambda model, points, path, **_: seen.append(points))
    monkeypatch.setattr(pointmix.explain, "draw_frames", lambda *a, **_: seen.append(a))
    model, info = load_run(folder / "clouds")
    info = {key: value for key, value in info.items() if key != "path"} | {"extent": 5000.0}
    save_model(tmp_path / "run" / "model.safetensors", model, info)
    pos = np.random.default_rng(0).normal(size=(300, 3))
    pos[:5] = np.nan
    np.save(tmp_path / "nan.npy", pos)
    argv = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "x.png")]
    for given in ([folder / "cloud.npz"], [folder / "a.png", "--depth", folder / "depth.png"], [tmp_path / "nan.npy"]):
        more = ["--nan", "drop"] if given[0] == tmp_path / "nan.npy" else []
        assert main([*map(str, given), *argv, *more]) == 0
        shown = capsys.readouterr().err
        assert "from corner to corner, the training data 5e+03; are the units the same?" in shown
        assert ("nan.npy: 5 points dropped, NaN or infinite" in shown) == bool(more)
    assert len(seen) == 3 and main([str(tmp_path / "nan.npy"), *argv]) == 2
    assert "nan drop leaves them out" in capsys.readouterr().err
    assert main([str(folder / "cloud.npz"), "--model", "coc_tiny", "--nan", "drop", "--out", "x.png"]) == 2
    assert "--nan goes with a cloud and a --run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, run, columns",
    [
        ("both.npz", "colored", []),
        ("both.npz", "normals", []),
        ("wide.npy", "colored", ["rgb"]),
        ("wide.npy", "normals", ["normal"]),
    ],
)
def test_a_run_gets_the_features_it_was_trained_on(main, folder, tmp_path, monkeypatch, name, run, columns):
    import pointmix.explain

    seen = []
    monkeypatch.setattr(pointmix.explain, "draw_clouds", lambda model, points, path, **_: seen.append(points.feat))
    argv = [str(folder / name), "--run", str(folder / run), "--out", str(tmp_path / "x.png")]
    assert main([*argv, *(["--columns", *columns] if columns else [])]) == 0
    is_normal = bool((seen[0] == torch.tensor([1.0, 0, 0])).all())
    assert seen[0].shape == (100, 3) and is_normal == (name == "both.npz" and run == "normals")


@pytest.mark.parametrize(
    "arguments, kind, points, blocks, maps",
    [
        (["a.png", "--run", "images", "--mask", "mask.png", "--label", "dog"], "lattice", None, 2, None),
        (["a.png", "--run", "colored", "--depth", "depth.png", *CAMERA], "lattice", 19 * 32, 2, 1),
        (["a.png", "--run", "colored", "--depth", "depth.png", *CAMERA, "--up=-y"], "cloud", 19 * 32, 2, 1),
        (["cloud.npz", "--run", "colored", "--clusters", "3"], "cloud", 100, 2, 1),
        (["many.npy", "--index", "1", "--model", "pointmlp_elite"], "cloud", 50, 0, 0),
        (["a.png", "--model", "test_vit"], "lattice", 160 * 160, 0, 6),
    ],
)
def test_a_page_is_written(main, folder, tmp_path, capsys, monkeypatch, arguments, kind, points, blocks, maps):
    monkeypatch.chdir(folder)
    assert main([*arguments, "--out", str(tmp_path / "a.html"), "--device", "cpu"]) == 0, capsys.readouterr().err
    page = content(tmp_path / "a.html")
    (epoch,) = page["epochs"]
    title = "many.npy, 1" if "--index" in arguments else arguments[0]
    assert (page["kind"], page["title"], len(epoch["blocks"])) == (kind, title, blocks)
    assert points is None or page["points"]["count"] == points
    assert len(epoch["maps"]) == maps or maps is None
    if "--label" in arguments:
        assert page["truth"] == "dog" and {"cat", "dog"} >= {epoch["guess"][0]["name"], "dog"}
        assert 0 < page["points"]["count"] < 32 * 32
        assert "class activation: dog" in [m["name"] for m in epoch["maps"]]


def test_the_epochs_of_a_run_are_on_its_page(main, folder, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(folder / "images", run)
    (run / "epochs").mkdir()
    for epoch in (2, 10):
        shutil.copy(run / "model.safetensors", run / f"epochs/epoch_{epoch}.safetensors")
    (run / "epochs/epoch_4.safetensors").write_bytes(b"no weights")
    assert main([str(folder / "a.png"), "--run", str(run), "--out", str(tmp_path / "a.html")]) == 0
    assert [e["label"] for e in content(tmp_path / "a.html")["epochs"]] == ["epoch 2", "epoch 10", "selected weights"]
    assert "warning: epoch 4 is left out: " in (err := capsys.readouterr().err) and "epoch_4.safetensors is not" in err


def test_a_page_is_served_without_a_file(main, folder, monkeypatch):
    from pointmix.explain.page import serve

    served = []
    monkeypatch.setattr(serve, "serve", lambda path, port: served.append((content(Path(path))["title"], port)))
    monkeypatch.chdir(folder)
    assert main(["a.png", "--run", "images", "--serve"]) == 0 and served == [("a.png", 0)]


def content(path):
    return json.loads(re.search(r'<script[^>]*id="content"[^>]*>(.*?)</script>', path.read_text(), re.S)[1])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none.ply"], "no file none.ply"),
        (["a.docx"], "a.docx: unknown kind of file"),
        (["many.npy"], "many.npy: it holds 2 clouds, give the index of one"),
        (["cloud.npz", "--mask", "mask.png"], "masks are for images"),
        (["a.png", "--depth", "small.png"], "depth is 9x32, the image is 24x32"),
        (["a.png", "--depth", "a.png"], "expected a depth image of one channel"),
        (["a.png", "--depth", "none.png"], "no depth file none.png"),
        (["a.png", "--depth", "depth.png", "--intrinsics", "0", "1", "1", "1"], "positive focal lengths"),
        (["a.png", *CAMERA], "--intrinsics are of an image with --depth"),
        (
            ["a.png", "--depth", "depth.png", "--run", "images"],
            "--depth is a flag of classify_points, segment; images is",
        ),
        (["a.png", "--run", "clouds"], "a.png is an image, expected a cloud, or --depth with it"),
        (["a.png", "--model", "pointmlp"], "pointmlp takes point clouds, expected a model of images"),
        (["many.npy", "--index", "0", "--model", "test_vit"], "test_vit takes no clouds, expected one of coc_"),
        (
            ["many.npy", "--index", "0", "--run", "colored"],
            "it has no feature rgb with a row for each point; it has: positions only",
        ),
        (["normal.npz", "--run", "colored"], "it has no feature rgb with a row for each point; it has: normal"),
        (["cloud.npz", "--run", "normals"], "it has no feature normal with a row for each point; it has: rgb"),
        (["wide.npy", "--run", "normals"], "it has: further columns; name the further columns with columns"),
        (["cloud.npz", "--run", "normals", "--columns", "normal"], "it has no feature normal"),
        (
            ["wide.npy", "--run", "colored", "--columns", "normal"],
            "it has no feature rgb with a row for each point; it has: normal",
        ),
        (
            ["wide.npy", "--run", "colored", "--columns", "red"],
            "columns red are 1 values a point, it has 3 without a name",
        ),
        (["wide.npy", "--columns", "rgb"], "--columns goes with a cloud and a --run"),
        (["a.png", "--run", "images", "--columns", "rgb"], "--columns is a flag of classify_points, segment; images"),
        (["a.png", "--run", "normals", "--depth", "depth.png"], "normals takes normal; a frame has colors alone"),
        (["cloud.npz", "--run", "images"], "cloud.npz is no image, images takes images"),
        (["flat.npy"], "expected points in 3 dimensions"),
        (["cloud.npz", "--up", "w"], "up must be one of"),
        (["cloud.npz", "--run", "clouds", "--checkpoint", "x"], "--checkpoint goes with --model"),
        (["cloud.npz", "--checkpoint", "none.pt"], "no file none.pt"),
        (["a.png", "--index", "1"], "--index is a flag of classify_points, segment; a.png is of classify_images"),
        ([], "FILE"),
        (["a.png", "--task", "nothing"], "no task 'nothing' is registered"),
        (["a.png", "--label", "cat"], "--label is for a page, and --out x.png does not end in .html"),
        (["a.png", "--serve"], "--serve is for a page, and --out x.png does not end in .html"),
        (["no.png", "--serve", "70000"], "port must be from 0 to 65535, got 70000"),
    ],
)
def test_errors_are_one_line(main, folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert main([*arguments, "--out", "x.png", "--device", "cpu"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not (folder / "x.png").exists()
