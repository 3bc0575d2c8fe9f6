"""scripts/evaluate.py on runs of clouds, with a small network of made-up weights."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import pointmix
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.transforms import unit_sphere
from pointmix.engine.checkpoint import load_run, save_model
from pointmix.pointset import PointSet
from pointmix.tasks.classify_points.voting import Voting

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
SMALL = dict(
    dims=[8, 8], depths=[1, 1], mlp_ratios=[2, 2], windows_per_side=[2, 1], centers_per_side=[2, 2], heads=1, head_dim=4
)
CLASSES = ["box", "[red]ball", "cone"]


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("evaluate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def write(root: Path, labels: list[int], names: list[str] | None = None) -> np.ndarray:
    """A test split alone, of clouds of 40 points."""
    rng = np.random.default_rng(0)
    path = root / "main_split" / "test_objectdataset.h5"
    path.parent.mkdir(parents=True)
    data = rng.normal(size=(len(labels), 40, 3)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.update({"data": data, "label": np.array(labels), "normal": data})
        if names:
            file.attrs["classes"] = ",".join(names)
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on clouds (run), on clouds with normals (normals) and on images (images); data whose test split has no cone
    (data), others of four classes (four) and of other names (others)."""
    folder = tmp_path_factory.mktemp("evaluate_points")
    write(folder / "data", [0, 1, 1, 0, 1])
    write(folder / "four", [0, 1, 2, 3])
    write(folder / "others", [0, 1, 2], ["cup", "jar", "pan"])
    torch.manual_seed(0)
    common = dict(source="scanobjectnn", root=str(folder / "data"), variant="obj_bg", points=32)
    for name, in_chans, features in (("run", 0, ()), ("normals", 3, ("normal",))):
        kwargs = SMALL | dict(coord_dims=3)
        model = pointmix.create_model("coc_tiny", num_classes=3, in_chans=in_chans, **kwargs)
        torch.nn.init.normal_(model.head.weight)
        cfg = PointDataConfig(
            **common, features=features, feature_scale=dict.fromkeys(features, 1.0), normalize="unit_sphere"
        )
        info = dict(task="classify_points", name="coc_tiny", kwargs=SMALL, classes=CLASSES, in_chans=in_chans)
        save_model(folder / name / "model.safetensors", model, info | {"data": asdict(cfg)})
    info = dict(task="classify_images", name="coc_tiny", kwargs=SMALL, classes=CLASSES, in_chans=3, img_size=32)
    info |= dict(mean=[0.5], std=[0.2], data={})
    save_model(folder / "images" / "model.safetensors", pointmix.create_model("coc_tiny", num_classes=3, **SMALL), info)
    return folder


def expected(folder: Path, *, votes: int = 1):
    """Logits and targets, computed by hand."""
    model, _ = load_run(folder / "run")
    with h5py.File(folder / "data/main_split/test_objectdataset.h5") as file:
        data, targets = torch.from_numpy(file["data"][:, :32]), torch.from_numpy(file["label"][:])
    data = data - data.mean(1, keepdim=True)
    data = data / data.norm(dim=2).amax(1)[:, None, None]
    network = Voting(model, votes=votes) if votes > 1 else model
    with torch.no_grad():
        return network(PointSet.cat([PointSet.from_points(cloud) for cloud in data])), targets


@pytest.mark.parametrize("votes", [1, 3])
def test_a_run_is_measured_on_its_own_test_split(main, folder, capsys, tmp_path, votes):
    out = tmp_path / "result.json"
    argv = ["--run", str(folder / "run"), "--votes", str(votes), "--out", str(out), "--batch_size", "2"]
    assert main([*argv, "--device", "cpu"]) == 0, capsys.readouterr().err
    result = json.loads(out.read_text())
    logits, targets = expected(folder, votes=votes)
    right = logits.argmax(1) == targets
    share = [right[targets == i].float().mean().item() for i in (0, 1)]
    assert result["oa"] == pytest.approx(right.float().mean().item())
    assert result["macc"] == pytest.approx(sum(share) / 2)
    assert result["per_class"] == [*map(pytest.approx, share), None] and result["classes"] == CLASSES
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-4)
    assert result["clouds"] == 5 and result["skipped"] == [] and result["votes"] == votes
    shown = capsys.readouterr().out
    assert all(
        word in shown for word in ("OA", "mAcc", "[red]ball", f"{100 * result['oa']:.2f} %", f"{result['loss']:.4f}")
    )
    assert ("3 votes" in " ".join(shown.split())) == (votes == 3)


def test_a_curve_over_shares_of_points(main, folder, tmp_path, capsys):
    out = tmp_path / "curve.png"
    argv = [str(folder / "run"), "--keep", "1", ".5", ".25", "--out", str(out), "--device", "cpu"]
    assert main(argv) == 0, capsys.readouterr().err
    with Image.open(out) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
    results = json.loads(out.with_suffix(".json").read_text())
    assert [r["keep"] for r in results] == [1, 0.5, 0.25] and len({r["loss"] for r in results}) == 3
    logits, targets = expected(folder)
    assert results[0]["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-4)
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["oa"]), float(row["macc"])) for row in rows] == [(r["oa"], r["macc"]) for r in results]
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("run, OA", "run, mAcc", "0.25", f"{100 * results[-1]['macc']:.2f} %"))
    assert main([*argv, "--batch_size", "1"]) == 0
    again = json.loads(out.with_suffix(".json").read_text())
    assert [r["loss"] for r in again] == pytest.approx([r["loss"] for r in results], rel=1e-5)  # whatever the batches


def test_names_that_the_files_do_not_say_are_those_of_the_run(main, folder, tmp_path, capsys):
    write(tmp_path / "named", [0, 1, 2], CLASSES)
    assert main([str(folder / "run"), "--data.root", str(tmp_path / "named"), "--device", "cpu"]) == 0
    assert "3 test clouds" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "--data.root", "others"], "knows 3 classes (box, [red]ball, cone), the data has 3 classes (cup, jar"),
        (["run", "--data.root", "four"], "label 3 is out of range, expected 0 to 2"),
        (["run", "--data.root", "nowhere"], "no file nowhere"),
        (["run", "--data.img_size", "32"], "data.img_size"),
        (["run", "--data.points", "100"], "data.points 100: the clouds of"),
        (["run", "--data.features=[normal]"], "takes data.features none, got normal"),
        (
            ["run", "--mask", "pixels"],
            "--mask is a flag of classify_images, segment, detect; run is of classify_points",
        ),
        (["run", "--keep", "1", "0"], "keep 0.0: expected a fraction of the points above 0"),
        (["run", "--keep", "nan"], "keep nan: expected a fraction"),
        (["run", "--keep", "1.5"], "keep 1.5: expected a fraction"),
        (["run", "--keep", ".01"], "keep 0.01: leaves none of 32 points"),
        (["run", "--votes", "0"], "votes must be at least 1, got 0"),
        (["run", "--batch_size", "0"], "batch size 0"),
        (["normals", "--votes", "2"], "votes scale positions but not normals"),
        (["images", "--votes", "2"], "--votes is a flag of classify_points, segment; images is of classify_images"),
        (["run", "images"], "run is of classify_points, images of classify_images; expected runs of one task"),
        (["--model", "pointmlp"], "pointmlp takes point clouds, expected a model of images, or a run on clouds"),
    ],
)
def test_errors_are_one_line(main, folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert main([*arguments, "--device", "cpu"]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert captured.out == ""  # refused before anything is measured


@pytest.mark.parametrize("votes", [None, 1, 3])
def test_all_points_of_sampled_clouds_are_seen_by_default(main, folder, tmp_path, capsys, votes):
    """A number that does not depend on which points are drawn, and the words beside it."""
    out = tmp_path / "result.json"
    argv = ["--run", str(folder / "run"), "--data.sampling=random", "--data.points=16", "--out", str(out)]
    assert main([*argv, *(["--votes", str(votes)] if votes else []), "--device", "cpu"]) == 0, capsys.readouterr().err
    result, shown = json.loads(out.read_text()), " ".join(capsys.readouterr().out.split())
    assert result["votes"] == votes
    text = {
        None: "all points of each cloud, in random parts of at most 16",
        1: "1 random part of each cloud, of at most 16 points",
    }
    assert text.get(votes, "3 random parts of each cloud, of at most 16 points") == result["points"]
    assert result["points"] in shown
    model, info = load_run(folder / "run")
    with h5py.File(folder / "data/main_split/test_objectdataset.h5", locking=False) as file:
        data = [PointSet.from_points(cloud) for cloud in file["data"][:]]
        targets = torch.from_numpy(file["label"][:])
    with torch.no_grad():
        logits = Voting(model, votes=votes, points=16, normalize=unit_sphere)(PointSet.cat(data))
    assert result["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, targets).item(), rel=1e-4)


def test_another_unit_is_warned_of(main, folder, tmp_path, capsys):
    model, info = load_run(folder / "run")
    keep = {key: value for key, value in info.items() if key != "path"}
    save_model(tmp_path / "run" / "model.safetensors", model, keep | {"extent": 6000.0})
    assert main(["--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    warned = capsys.readouterr().err
    assert warned.count("from corner to corner, the training data 6e+03; are the units the same?") == 1
    save_model(tmp_path / "run" / "model.safetensors", model, keep | {"extent": 6.0})
    assert main(["--run", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "warning" not in capsys.readouterr().err
