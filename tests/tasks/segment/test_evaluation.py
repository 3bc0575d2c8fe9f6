"""The rows of evaluate.py for segmenters."""

from __future__ import annotations

import csv
import io
import json
from argparse import ArgumentParser

import pytest
import torch
from rich.console import Console

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import resolve
from pointmix.engine.evaluate import evaluate
from pointmix.tasks.segment.evaluation import measurements, save_evaluation, show_evaluation
from pointmix.tasks.segment.flags import add_arguments
from pointmix.tasks.segment.metrics import PartMetric, SegmentationMetric
from tests.data.segment import toy
from tests.tasks.segment.standin import StandIn

SCORES = SegmentationMetric.scores


def flags(*argv, out=None):
    parser = ArgumentParser()
    add_arguments(parser, "evaluate")
    parser.add_argument("--out", default=out)
    return parser.parse_args(argv)


@pytest.fixture
def images():
    cfg = resolve(SegmentDataConfig(source="toy_images"))
    return cfg, {"classes": list(toy.CLASSES), "categories": None, "path": "run"}


@pytest.fixture
def clouds():
    cfg = resolve(SegmentDataConfig(source="toy_clouds", feature_scale={"value": 1.0}))
    categories = {name: list(parts) for name, parts in toy.ToyClouds.categories.items()}
    return cfg, {"classes": list(toy.CLASSES), "categories": categories, "path": "run"}


def reds():
    """Takes the reddest class for the last and the least red ones for the first."""
    model = StandIn(num_classes=3)
    model.weight.data = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]])
    return model


def measured(model, data, info, args):
    results = []
    for row in measurements(model, info, data, args):
        metrics = evaluate(row.model, row.loader, metric=row.metric)
        about = {"name": "run", "model": "net", "weights": "w", "samples": len(row.loader.samples), "skipped": []}
        results.append(about | row.settings | metrics)
    return results


def shown(results, args):
    console = Console(width=150, file=io.StringIO())
    show_evaluation(results, SCORES, "samples", args, console)
    return " ".join(console.file.getvalue().split())


def test_scores_of_whole_images_and_the_table_by_class(images, tmp_path):
    cfg, info = images
    args, model = flags(out=str(tmp_path / "r.json")), reds()
    (result,) = measured(model, cfg, info, args)
    assert sum(map(sum, result["confusion"])) == 4 * 64 and result["keep"] == 1 and result["mask"] is None
    right = sum(result["confusion"][i][i] for i in range(3))
    assert result["aacc"] == right / 256 and 0.3 < result["aacc"] < 0.9
    text = shown([result], args)
    assert "middle" in text and f"{100 * result['miou']:.2f} %" in text
    assert [path.name for path in save_evaluation([result], SCORES, "samples", args)] == ["r.json"]
    assert json.loads((tmp_path / "r.json").read_text())["miou"] == result["miou"]


def test_flags_of_the_inference_are_used(images):
    cfg, info = images
    args, model = flags("--sliding", "4", "4", "--flip", "--scales", "1", "2"), StandIn(num_classes=3)
    (result,) = measured(model, cfg, info, args)
    assert {call.layout.size for call in model.calls} == {(4, 4)}
    assert result["sliding"] == [4, 4] and result["flip"] and result["scales"] == [1.0, 2.0]
    assert "windows of 4 x 4, scales 1, 2, flip" in shown([result], args)


def test_a_curve_over_visible_pixels(images, tmp_path):
    cfg, info = images
    args, model = flags("--keep", "1", "0.5", "--mask", "pixels", out=str(tmp_path / "c.png")), StandIn(num_classes=3)
    results = measured(model, cfg, info, args)
    assert [r["keep"] for r in results] == [1.0, 0.5] and {r["mask"] for r in results} == {"pixels"}
    assert [sum(map(sum, r["confusion"])) for r in results] == [256, 128]  # the visible pixels alone count
    assert len(model.calls[-1].feat) == 32
    text = shown(results, args)
    assert "4 test samples, visible points under masks of pixels" in text and "mIoU" in text
    files = save_evaluation(results, SCORES, "samples", args)
    assert [path.name for path in files] == ["c.png", "c.csv", "c.json"] and all(path.exists() for path in files)
    rows = list(csv.DictReader(files[1].open()))
    assert float(rows[1]["miou"]) == results[1]["miou"] and rows[1]["mask"] == "pixels"


def test_parts_of_clouds_with_votes(clouds):
    cfg, info = clouds
    args, model = flags("--votes", "3"), StandIn(1, 3, dims=3, categories=2)
    (result,) = measured(model, cfg, info, args)
    assert set(PartMetric.part_scores) <= set(result) and len(model.calls) == 4 * 3
    text = shown([result], args)
    assert "instance mIoU" in text and "by category" in text and "3 votes" in text


def test_a_curve_over_random_points_of_clouds(clouds):
    cfg, info = clouds
    args = flags("--keep", "0.5")
    (result,) = measured(StandIn(1, 3, dims=3, categories=2), cfg, info, args)
    assert sum(map(sum, result["confusion"])) == 4 * 6 and result["mask"] is None
    assert "random points kept" in shown([result], args)


@pytest.mark.parametrize(
    "kind, argv, message",
    [
        ("images", ["--keep", "0"], "--keep must be above 0"),
        ("images", ["--keep", "0.5", "--mask", "stripes"], "--mask must be one of patches, block, pixels, any, got"),
        ("images", ["--mask", "pixels"], "--mask pixels is for --keep on images"),
        ("clouds", ["--keep", "0.5", "--mask", "pixels"], "--mask pixels is for --keep on images"),
        ("clouds", ["--flip"], "--flip is for images"),
        ("images", ["--votes", "2"], "--votes 2 is for clouds"),
        ("images", ["--keep", "0.5", "--scales", "2"], "--sliding or --scales resizes or divides images; those of"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_read(request, monkeypatch, kind, argv, message):
    cfg, info = request.getfixturevalue(kind)
    monkeypatch.setattr(toy.Toy, "read", None)
    with pytest.raises(ValueError, match=message):
        measurements(StandIn(num_classes=3), info, cfg, flags(*argv))


def test_other_classes_are_refused(images):
    cfg, info = images
    with pytest.raises(ValueError, match="run knows 2 classes .*, the data has 3 classes"):
        list(measurements(StandIn(), info | {"classes": ["a", "b"]}, cfg, flags()))


def test_random_state_is_left_alone(images):
    cfg, info = images
    before = torch.random.get_rng_state()
    measured(StandIn(num_classes=3), cfg, info, flags("--keep", "0.5", "--mask", "any"))
    assert torch.equal(before, torch.random.get_rng_state())
