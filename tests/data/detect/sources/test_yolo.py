from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect
from pointmix.io.errors import UnreadableSample
from tests.data.detect.files import SIZE, opened, write_image, write_yolo


def test_boxes_in_pixels_and_classes_with_gaps(tmp_path):
    source = opened("yolo", write_yolo(tmp_path), masks=False)
    assert source.classes == ("cat", "dog") and source.category_ids == (1, 3) and not source.has_masks
    read = source.read(0)
    assert np.allclose(read.objects.boxes, [[12, 6, 18, 14], [3, 2, 9, 10]])
    assert read.objects.labels.tolist() == [1, 0] and np.allclose(read.objects.area, [48, 48])
    assert read.image_id == "a" and source.size(0) == SIZE
    assert len(source.read(1).objects) == 0 and not source.has_objects(1)  # no label file
    assert opened("yolo", tmp_path, "val") is None and len(opened("yolo", tmp_path, "test")) == 2


def test_polygons(tmp_path):
    write_yolo(tmp_path, {"train/a": "1 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5", "train/b": "3 0 0 1 0 1 1"})
    source = opened("yolo", tmp_path)
    assert source.has_masks
    mask = np.zeros(SIZE, np.uint8)
    mask[2:10, 3:9] = 1
    assert (rle.decode(source.read(0).objects.masks, SIZE) == mask).all()
    assert np.allclose(source.read(0).objects.boxes, [[3, 2, 9, 10]])
    with pytest.warns(UserWarning, match="data.yaml, train: 1 of 3 objects have no mask, so none are read; data.masks"):
        assert not opened("yolo", write_yolo(tmp_path)).has_masks
    with pytest.warns(UserWarning, match=r"left out 1 objects without a mask \(the first is .*train/a.png\)"):
        masked = opened("yolo", tmp_path, masks=True)
    assert masked.read(0).objects.labels.tolist() == [0] and len(masked.read(0).objects.masks) == 1


def test_names_as_a_list_lists_of_images_and_a_test_split(tmp_path):
    write_yolo(tmp_path, names=["bird", "cat", "cow", "dog"], test="test.txt", train=["images/train", "images/val"])
    (tmp_path / "test.txt").write_text("./images/val/a.png\nimages/train/b.png\n")
    source = opened("yolo", tmp_path, classes=("dog",), masks=False)
    assert len(source) == 4 and source.category_ids == (3,)
    assert source.read(0).objects.labels.tolist() == [0] and len(source.read(2).objects) == 0
    assert len({image.image_id for image in source.images}) == 4  # a.png of train and of val
    test = opened("yolo", tmp_path, "test")
    assert [len(test.read(i).objects) for i in range(2)] == [1, 0] and len(opened("yolo", tmp_path, "val")) == 2


def test_images_without_a_label_file_are_left_out_if_the_data_say_so(tmp_path):
    write_yolo(tmp_path, skip_if_label_file_missing=True)
    with pytest.warns(UserWarning, match=r"data.yaml, train: left out 1 images without a label file .*b.png\)"):
        assert len(opened("yolo", tmp_path, masks=False)) == 1


def test_images_in_the_folder_above_and_another_name_of_the_file(tmp_path):
    root = write_yolo(tmp_path / "boxes")
    shutil.move(root / "images", tmp_path / "images")
    (root / "data.yaml").rename(root / "other.yaml")
    assert len(opened("yolo", root / "other.yaml", masks=False).read(0).objects) == 2
    with pytest.raises(FileNotFoundError, match="boxes: none of data.yaml, config.yaml, dataset.yaml"):
        opened("yolo", root)


def test_labels_in_the_folder_above_as_the_images_are(tmp_path):
    root = write_yolo(tmp_path) / "data"
    root.mkdir()
    (tmp_path / "data.yaml").rename(root / "data.yaml")
    assert len(opened("yolo", root, masks=False).read(0).objects) == 2


def test_places_of_roboflow(tmp_path):
    root = write_yolo(tmp_path / "data", train="../train/images", val="../val/images")
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / kind)
    assert len(opened("yolo", root, masks=False).read(0).objects) == 2
    with pytest.raises(FileNotFoundError, match=r"train is ../nowhere; no .*data/../nowhere"):
        opened("yolo", write_yolo(tmp_path / "data", train="../nowhere"))


def test_labels_in_another_place(tmp_path):
    shutil.move(write_yolo(tmp_path) / "labels", tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"none of 2 images for train has a label file; no .*/labels/train/a.txt"):
        opened("yolo", tmp_path)


def test_another_file_for_the_same_data(tmp_path):
    root = write_yolo(tmp_path / "data")
    other = write_yolo(tmp_path / "other", path=str(root), val="images/train") / "data.yaml"
    config = DetectDataConfig(source="yolo", root=str(other), short_side=20, val_fraction=0.0, masks=False)
    with pytest.warns(UserWarning) as caught:
        data = build_detect(config, batch_size=1, seed=0)
    shared, empty = (str(warning.message) for warning in caught)
    assert shared.startswith("2 images are in both train and test") and empty.startswith("left out 1 of 2 training")
    assert [batch.truths[0].name for batch in data.test] == [str(root / f"images/train/{stem}.png") for stem in "ab"]


def test_the_size_of_a_turned_image_is_that_of_the_upright_one(tmp_path):
    write_yolo(tmp_path)
    path = write_image(tmp_path / "images/train/a.png").with_suffix(".jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path.with_suffix(".png")).save(path, exif=exif)
    path.with_suffix(".png").unlink()
    source = opened("yolo", tmp_path, masks=False)
    assert source.size(0) == (30, 20) and source.read(0).image.size == (20, 30)
    (tmp_path / "images/train/b.png").write_bytes(b"")
    with pytest.raises(UnreadableSample):
        source.size(1)


@pytest.mark.parametrize(
    "line, message",
    [
        ("2 0.5 0.5 0.1 0.1", r"class 2, expected one of 2 numbers from 1 to 3 that data.yaml names"),
        ("-1 0.5 0.5 0.1 0.1", r"class -1, expected one of 2 numbers"),
        ("1.5 0.5 0.5 0.1 0.1", r"class 1.5, expected a whole number"),
        ("1 0.5 0.5 0.1", r"3 coordinates, expected x y width height, or x y of each corner"),
        ("1 0.1 0.1 0.3 0.1 0.3 0.5 0.1", r"7 coordinates, expected"),
        ("1 0.5 nan 0.1 0.1", r"NaN or infinite, expected finite numbers"),
        ("1 0.5 0.5 inf 0.1", r"NaN or infinite"),
        ("1 0.5 0.5 1e999 0.1", r"NaN or infinite"),
        ("cat 0.5 0.5 0.1 0.1", r"could not convert string to float: 'cat', expected numbers"),
        ("\0\x1b[0m", r"expected numbers"),
    ],
)
def test_lines_that_are_wrong(tmp_path, line, message):
    write_yolo(tmp_path, {"train/a": f"1 0.5 0.5 0.1 0.1\n{line}\n"})
    with pytest.raises(ValueError, match=message) as error:
        opened("yolo", tmp_path)
    assert f"{tmp_path}/labels/train/a.txt, line 2" in str(error.value) and str(error.value).isprintable()


def test_objects_without_area_are_left_out_and_counted(tmp_path):
    lines = ["1 0.5 0.5 0 0.1", "1 0.5 0.5 0.1 -0.1", "1 1.5 0.5 0.1 0.1", "1 1 1 0.2 0.2"]
    write_yolo(tmp_path, {"train/a": "\n".join(lines), "train/b": "1 0.1 0.1 0.2 0.1 0.3 0.1\n1 0.1 0.1"})
    expected = r"left out 4 objects without area in the image \(the first is .*line 1\); 1 polygons of fewer"
    with pytest.warns(UserWarning, match=expected):
        source = opened("yolo", tmp_path)
    assert np.allclose(source.read(0).objects.boxes, [[27, 18, 33, 22]]) and not source.has_objects(1)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"names": None}, r"names is None, expected a list of names, or number: name"),
        ({"names": "cat"}, r"names is 'cat'"),
        ({"names": []}, r"names no classes"),
        ({"names": ["cat", "cat", "dog", "cow"]}, r"names the class cat twice"),
        ({"names": [["cat"]]}, r"names is {0: \['cat'\]}"),
        ({"train": None}, r"names no train images"),
        ({"train": 3}, r"train is 3, expected a folder, or a list of them"),
        ({"train": "nowhere"}, r"train is nowhere; no "),
        ({"path": 3}, r"path is 3, expected a folder"),
        ({"train": "labels"}, r"no image for train"),
    ],
)
def test_what_the_data_file_lacks(tmp_path, values, message):
    write_yolo(tmp_path, **values)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        opened("yolo", tmp_path)
    assert "data.yaml" in str(error.value)


def test_data_files_that_are_none(tmp_path):
    path = write_yolo(tmp_path) / "data.yaml"
    for text, message in (
        ("names: [a", "is not YAML"),
        ("- 1", "expected train, val and names"),
        ("", "expected train, val and names"),
        ("a: &a [*a]", "contains itself"),
        ("names: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("names: {a: b}", "expected a list of names, or number: name"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            opened("yolo", tmp_path)
    path.write_bytes(b"names: \xff\xfe")
    with pytest.raises(ValueError, match="is not YAML"):
        opened("yolo", tmp_path)
    write_yolo(tmp_path, train="train.txt")
    (tmp_path / "train.txt").write_text("images/train/zzz.png")
    with pytest.raises(FileNotFoundError, match=r"train.txt, line 1: no file .*zzz.png"):
        opened("yolo", tmp_path)
    (tmp_path / "train.txt").write_text("images/train/a.png\nimages/train/a.png")
    with pytest.raises(ValueError, match=r"the image .*train/a.png is named twice"):
        opened("yolo", tmp_path)
    write_yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="a.txt is not text in UTF-8"):
        opened("yolo", tmp_path)


@pytest.mark.parametrize("kind, masks, first", [("instance_segmentation", True, 1), ("object_detection", False, 0)])
def test_real_data(kind, masks, first):
    folder = os.environ.get("POINTMIX_DATA", "")
    if not (Path(folder) / "coco_mini" / kind).is_dir():
        pytest.skip("POINTMIX_DATA does not name a folder with coco_mini")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = DetectDataConfig(source="yolo", root=f"{folder}/coco_mini/{kind}", short_side=96, max_side=160)
        data = build_detect(config, batch_size=4, seed=0)
    assert (len(data.classes), data.category_ids[0], data.has_masks) == (80, first, masks)
    assert len(data.test) == 30 and len(data.train.samples) in (53, 54) and len(data.val) == 6
    batch = next(iter(data.train))
    assert len(batch.targets) == 4 and all(len(target.labels) for target in batch.targets)
    for batch, _ in zip(data.test, range(5), strict=False):
        (truth,) = batch.truths
        if masks:
            assert np.median(abs(rle.boxes(truth.objects.masks) - truth.objects.boxes)) < 0.1
