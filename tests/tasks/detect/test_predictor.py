from __future__ import annotations

import csv
import json
from argparse import ArgumentParser

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import resolve
from pointmix.tasks.detect.flags import add_arguments
from pointmix.tasks.detect.predictor import DetectPredictor
from pointmix.tasks.protocols import Predictor
from tests.data.detect import toy  # noqa: F401  registers its source
from tests.tasks.detect.standin import StandIn

INFO = {"classes": ["cat", "dog"], "category_ids": [17, 18], "path": "run"}
FOUND = [([0, 0, 15, 10], 1, 0.9), ([3, 2, 9, 8], 0, 0.75), ([3, 2, 9, 8], 1, 0.25)]  # on a lattice of 20 x 30


def predictor(files, *argv, model=None):
    parser = ArgumentParser()
    parser.add_argument("files", nargs="+")
    add_arguments(parser, "predict")
    cfg = resolve(DetectDataConfig(source="toy_objects", keep_ratio=0.5))
    args = parser.parse_args([*map(str, files), *map(str, argv)])
    return DetectPredictor(model or StandIn(FOUND), INFO, cfg, args)


def save_image(path, size=(60, 40)):
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_boxes_and_masks_are_written_in_cocos_form_with_pictures(tmp_path):
    files, out = (
        [save_image(tmp_path / "x" / "a.png"), save_image(tmp_path / "y" / "a.png", (30, 20))],
        tmp_path / "out",
    )
    made = predictor(files, "--out", out)
    assert isinstance(made, Predictor)
    assert made.predict(str(files[0])) == [("cat", 1, 0.75), ("dog", 1, pytest.approx(0.9))]
    made.predict(str(files[1]))
    assert made.finish() == [f"4 detections in 2 files in {out / 'detections.json'}"]
    assert sorted(path.name for path in out.iterdir()) == ["a_2_overlay.png", "a_overlay.png", "detections.json"]
    found = json.loads((out / "detections.json").read_text())
    assert found["categories"] == [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    assert found["images"][0] == {"id": 1, "file_name": str(files[0]), "height": 40, "width": 60}
    first, second, *_ = found["annotations"]
    assert first["bbox"] == [0, 0, 30, 20] and first["category_id"] == 18 and first["score"] == pytest.approx(0.9)
    assert second["bbox"] == [6, 4, 12, 12] and second["image_id"] == 1 and second["area"] == 144
    assert rle.boxes([second["segmentation"]]).tolist() == [[6, 4, 18, 16]]
    assert [row["id"] for row in found["annotations"]] == [1, 2, 3, 4] and found["annotations"][2]["image_id"] == 2
    with Image.open(out / "a_overlay.png") as picture:
        assert picture.width == 660 and picture.height > 440  # enlarged, with a legend below
    assert all(points.layout.size == (32, 32) for points, _ in made.model.calls)  # all pixels are visible


def test_one_file_without_pictures(tmp_path):
    file = save_image(tmp_path / "a.png")
    for name in ("found.json", "boxes.CSV"):
        made = predictor([file], "--out", tmp_path / "new" / name)
        made.predict(str(file))
        assert made.finish() == [f"2 detections in 1 file in {tmp_path / 'new' / name}"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"found.json", "boxes.CSV"}
    annotations = json.loads((tmp_path / "new" / "found.json").read_text())["annotations"]
    rows = list(csv.DictReader((tmp_path / "new" / "boxes.CSV").open()))
    assert [row["class"] for row in rows] == ["dog", "cat"] and {row["file"] for row in rows} == {str(file)}
    for row, annotation in zip(rows, annotations, strict=True):
        assert [float(row[key]) for key in ("x", "y", "width", "height")] == annotation["bbox"]
        assert float(row["score"]) == annotation["score"] and int(row["category_id"]) == annotation["category_id"]
    (tmp_path / "taken").touch()
    with pytest.raises(NotADirectoryError, match="taken is a file"):
        predictor([file], "--out", tmp_path / "taken" / "found.csv")


def test_scores_below_the_threshold_are_left_out(tmp_path):
    file = save_image(tmp_path / "a.png")
    assert predictor([file], "--score", 0.2).predict(str(file)) == [("cat", 1, 0.75), ("dog", 2, pytest.approx(0.9))]
    made = predictor([file], "--score", 0.95)
    assert made.predict(str(file)) == [("nothing", 0, 0.0)] and made.finish() == []
    with pytest.raises(ValueError, match="--score must be"):
        predictor([file], "--score", 2)


@pytest.mark.parametrize("size", [(1, 1), (500, 2)])
def test_images_of_any_size(tmp_path, size):
    file = save_image(tmp_path / "a.png", size)
    made = predictor([file], "--out", tmp_path / "out", model=StandIn([([0, 0, 1, 1], 0, 0.9)]))
    made.predict(str(file))
    made.finish()
    (row,) = json.loads((tmp_path / "out" / "detections.json").read_text())["annotations"]
    assert row["segmentation"]["size"] == [size[1], size[0]]


def test_hidden_pixels_are_absent(tmp_path):
    file, mask = save_image(tmp_path / "a.png"), np.zeros((40, 60), np.uint8)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = predictor([file], "--mask", tmp_path / "mask.png")
    made.predict(str(file))
    ((points, sizes),) = made.model.calls
    assert sizes.tolist() == [[20, 30]] and len(points.feat) == 20 * 15 and points.layout.cell[:, 1].max() == 14
    other = save_image(tmp_path / "b.png", (5, 5))
    with pytest.raises(ValueError, match="mask"):
        made.predict(str(other))
    with pytest.raises(FileNotFoundError, match="no mask file"):
        predictor([file], "--mask", tmp_path / "none.png")


def test_files_that_are_no_images_and_damaged_weights(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("x")
    made = predictor([file])
    with pytest.raises(ValueError, match="a.txt is no image, run takes images"):
        made.predict(str(file))
    image = save_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="the detections in .*a.png are not finite"):
        predictor([image], model=StandIn([([0, 0, 1, 1], 0, float("nan"))])).predict(str(image))
    (tmp_path / "b.png").write_bytes(image.read_bytes()[:100])
    with pytest.raises(ValueError, match="b.png"):
        made.predict(str(tmp_path / "b.png"))
    assert torch.is_grad_enabled()
