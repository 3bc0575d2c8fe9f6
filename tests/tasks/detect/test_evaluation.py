"""The rows of evaluate.py for detectors, and their files."""

from __future__ import annotations

import csv
import io
import json
from argparse import ArgumentParser
from contextlib import redirect_stdout

import pytest
import torch
from rich.console import Console
from torch import nn

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import resolve
from pointmix.engine.evaluate import evaluate
from pointmix.models.detector import Detections
from pointmix.tasks.detect.evaluation import measurements, save_evaluation, show_evaluation
from pointmix.tasks.detect.flags import add_arguments
from pointmix.tasks.detect.metrics import DetectionMetric
from tests.data.detect import toy

INFO = {"classes": list(toy.CLASSES), "category_ids": list(toy.Toy.category_ids), "path": "run", "has_masks": True}
SCORES = DetectionMetric.scores


class Truthful(nn.Module):
    """Finds the objects of the test images, in their order, but takes every third class for the first.

    Args:
        masks: whether it finds masks.
    """

    def __init__(self, masks=True):
        super().__init__()
        self.masks, self.calls = masks, []

    def forward(self, points, sizes=None, targets=None):
        sample = toy.Toy("test").read(len(self.calls) % 4)
        self.calls.append(points)
        objects, size = sample.objects, (sample.image.height, sample.image.width)
        scale = sizes[0] / torch.tensor(size)  # y, x
        boxes = torch.from_numpy(objects.boxes) * scale.flip(0).repeat(2)
        labels = torch.from_numpy(objects.labels)
        scores = torch.tensor([0.9, 0.75, 0.5])
        masks = torch.ones(3, 28, 28) if self.masks else None
        return [Detections(boxes.float(), torch.where(labels == 2, 0, labels), scores, masks)]


def flags(*argv, out=None, runs=("run",)):
    parser = ArgumentParser()
    add_arguments(parser, "evaluate")
    parser.set_defaults(out=out, runs=list(runs), run=None)
    return parser.parse_args([str(arg) for arg in argv])


def data(**changes):
    return resolve(DetectDataConfig(source="toy_objects", short_side=40, max_side=80, **changes))


def measured(model, args, cfg=None, info=None, name="run"):
    results = []
    for row in measurements(model, info or INFO, cfg or data(), args):
        metrics = evaluate(row.model, row.loader, metric=row.metric)
        about = {"name": name, "model": "net", "weights": "w", "images": len(row.loader.samples), "skipped": []}
        results.append(about | row.settings | metrics)
    return results


def shown(results, args):
    console = Console(width=150, file=io.StringIO())
    show_evaluation(results, SCORES, "images", args, console)
    return " ".join(console.file.getvalue().split())


def test_ap_and_the_table_by_class(tmp_path):
    args, model = flags(out=str(tmp_path / "r.json")), Truthful()
    results = measured(model, args)
    (result,) = results
    assert result["box_ap_per_class"][1] == pytest.approx(1) and result["box_ap_per_class"][2] == 0
    assert 0.3 < result["box_ap"] < 0.7 and result["objects"] == [4, 4, 4]
    assert result["images"] == 4 and result["keep"] is None and result["mask"] is None
    text = shown(results, args)
    assert "run, by class" in text and "run on 4 test images" in text and f"{100 * result['mask_ap']:.1f}" in text
    assert [path.name for path in save_evaluation(results, SCORES, "images", args)] == ["r.json"]
    assert json.loads((tmp_path / "r.json").read_text())["box_ap"] == result["box_ap"]
    two = [result, result | {"name": "other"}]
    assert "other, mask" in shown(two, args)


def test_a_csv_has_a_row_for_each_class(tmp_path):
    args = flags(out=str(tmp_path / "r.csv"))
    results = measured(Truthful(), args)
    assert [path.name for path in save_evaluation(results, SCORES, "images", args)] == ["r.csv"]
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert [(row["class"], row["category_id"], row["objects"]) for row in rows] == [
        ("all classes", "", "12"), ("a", "7", "4"), ("b", "3", "4"), ("c", "20", "4"),
    ]  # fmt: skip
    assert float(rows[0]["mask_ap"]) == results[0]["mask_ap"] and float(rows[2]["box_ap50"]) == 1
    assert rows[1]["box_ap75"] == "" and float(rows[0]["box_ar"]) == results[0]["box_ar"]
    boxes = measured(Truthful(masks=False), args, info=INFO | {"has_masks": False}, name="boxes")
    save_evaluation(boxes + results, SCORES, "images", args)
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert len(rows) == 8 and rows[0]["mask_ap"] == "" and float(rows[4]["mask_ap"]) == results[0]["mask_ap"]


def test_coco_results_have_the_ids_of_the_data_and_the_same_ap(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    args = flags("--coco_json", tmp_path / "found.json")
    (result,) = measured(Truthful(), args)
    assert "found.json" in shown([result], args).replace(" ", "")
    rows = json.loads((tmp_path / "found.json").read_text())
    assert len(rows) == 12 and {row["category_id"] for row in rows} == {7, 3}
    assert {row["image_id"] for row in rows} == {0, 1, 2, 3}
    assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(rows[0])
    truth = {"images": [], "annotations": [], "categories": [{"id": i} for i in (7, 3, 20)], "info": {}}
    for i in range(4):
        sample = toy.Toy("test").read(i)
        truth["images"].append({"id": i, "width": sample.image.width, "height": sample.image.height})
        for j, (x1, y1, x2, y2) in enumerate(sample.objects.boxes.tolist()):
            row = {
                "id": 3 * i + j + 1,
                "image_id": i,
                "category_id": (7, 3, 20)[sample.objects.labels[j]],
                "iscrowd": 0,
            }
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(sample.objects.area[j])}
            truth["annotations"].append(row | {"segmentation": sample.objects.masks[j]})
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        with redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = truth
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(result[f"{name}_ap"], abs=1e-12)


def test_a_curve_over_visible_pixels(tmp_path):
    args, model = flags("--keep", 1, 0.5, "--mask", "pixels", out=str(tmp_path / "c.png")), Truthful()
    results = measured(model, args)
    assert [r["keep"] for r in results] == [1.0, 0.5] and {r["mask"] for r in results} == {"pixels"}
    assert len(model.calls) == 8 and len(model.calls[4].feat) == 40 * 60 / 2
    text = shown(results, args)
    assert "4 test images, visible pixels under masks of pixels" in text and "box AP" in text
    files = save_evaluation(results, SCORES, "images", args)
    assert [path.name for path in files] == ["c.png", "c.csv", "c.json"] and all(path.exists() for path in files)
    rows = list(csv.DictReader(files[1].open()))
    assert float(rows[1]["box_ap"]) == results[1]["box_ap"] and rows[1]["keep"] == "0.5"
    boxes = measured(Truthful(masks=False), args, info=INFO | {"has_masks": False}, name="boxes")
    save_evaluation(boxes + results, SCORES, "images", args)
    rows = list(csv.DictReader(files[1].open()))
    assert rows[0]["mask_ap"] == "" and float(rows[2]["mask_ap"]) == results[0]["mask_ap"]


def test_a_network_of_boxes_is_measured_by_boxes(tmp_path):
    args = flags(out=str(tmp_path / "r.csv"))
    results = measured(Truthful(masks=False), args, info=INFO | {"has_masks": False})
    assert "mask" not in shown(results, args)
    save_evaluation(results, SCORES, "images", args)
    assert "mask_ap" not in (tmp_path / "r.csv").read_text()


def test_data_without_masks_are_measured_by_boxes_and_it_is_said():
    args = flags()
    results = measured(Truthful(), args, data(masks=False))
    assert "mask_ap" not in results[0] and results[0]["box_ap"] > 0.3
    assert "run: the data have no masks, so boxes alone are compared" in shown(results, args)


def test_masks_asked_of_data_without_them_are_refused(monkeypatch):
    monkeypatch.setattr(toy.Toy, "has_masks", False)
    with pytest.raises(ValueError, match="data.masks is true, but the objects of data.source toy_objects have boxes"):
        measured(Truthful(), flags(), data(masks=True))
    (result,) = measured(Truthful(), flags(), data())
    assert "mask_ap" not in result and result["box_ap"] > 0.3


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--keep", "0"], "--keep must be above 0"),
        (["--keep", "0.5", "--mask", "stripes"], "--mask must be one of patches, block, pixels, any, got"),
        (["--mask", "pixels"], "--mask pixels is for --keep; give both"),
        (["--keep", "1", "0.5", "--coco_json", "x.json"], "--coco_json x.json is for one network and one share"),
    ],
)
def test_wrong_flags_are_refused(argv, message):
    with pytest.raises(ValueError, match=message) as e:
        measurements(Truthful(), INFO, data(), flags(*argv))
    assert "\n" not in str(e.value)


def test_results_are_of_one_network():
    with pytest.raises(ValueError, match="--coco_json x.json is for one network"):
        measurements(Truthful(), INFO, data(), flags("--coco_json", "x.json", runs=("a", "b")))


def test_data_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="run knows 2 classes .*, the data has 3 classes"):
        measured(Truthful(), flags(), info=INFO | {"classes": ["a", "b"]})
