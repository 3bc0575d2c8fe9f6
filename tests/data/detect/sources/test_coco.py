from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.detect.files import SIZE, coco_content, opened, write_coco, write_image


@pytest.fixture
def content():
    return coco_content()


def test_images_objects_and_categories_with_gaps(tmp_path):
    source = opened("coco", write_coco(tmp_path))
    assert source.classes == ("cat", "dog", "brush") and source.category_ids == (4, 7, 90) and source.has_masks
    assert [source.images[i].image_id for i in range(3)] == [30, 10, 20]
    assert source.name(1) == str(tmp_path / "train2017/10.png") and source.size(1) == SIZE
    assert [source.has_objects(i) for i in range(3)] == [False, True, False]
    read = source.read(1)
    assert read.image_id == 10 and read.image.size == (30, 20)
    assert read.objects.boxes.tolist() == [[2, 3, 8, 7], [1, 1, 6, 6]]
    assert read.objects.labels.tolist() == [2, 0] and read.objects.area.tolist() == [23.5, 24]
    mask = np.zeros(SIZE, np.uint8)
    mask[3:7, 2:8] = 1
    assert (rle.decode(read.objects.masks, SIZE) == mask).all()
    assert len(source.read(0).objects) == 0 and source.read(0).objects.masks == ()
    crowd = source.read(2).objects
    assert crowd.crowd.tolist() == [True] and crowd.area.tolist() == [10]
    assert rle.boxes(crowd.masks).tolist() == [[2, 0, 3, 10]]
    assert opened("coco", tmp_path, "val") is None and len(opened("coco", tmp_path, "test")) == 3


def test_some_classes_in_an_order_of_ones_own_and_boxes_alone(tmp_path):
    source = opened("coco", write_coco(tmp_path), classes=("brush", "cat"), masks=False)
    assert source.classes == ("brush", "cat") and source.category_ids == (90, 4) and not source.has_masks
    assert source.read(1).objects.labels.tolist() == [0, 1] and source.read(1).objects.masks is None
    assert source.read(2).objects.area.tolist() == [10]  # of the box
    source = opened("coco", tmp_path, classes=("dog",))
    assert not any(len(source.read(i).objects) for i in range(3))
    with pytest.raises(ValueError, match="data.classes: no class cow in .*train2017.json; it has cat, dog, brush"):
        opened("coco", tmp_path, classes=("cow",))


def test_files_by_other_names(tmp_path, content):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(json.dumps(content))
        for entry in content["images"]:
            write_image(tmp_path / name / entry["file_name"])
    settings = {"train_json": "a/x.json", "val_json": "b/x.json", "test_json": "c/x.json"}
    names = [opened("coco", tmp_path, split, **settings).name(0) for split in ("train", "val", "test")]
    assert names == [str(tmp_path / name / "30.png") for name in ("a", "b", "c")]


def test_training_images_as_the_test_split(tmp_path):
    name = "annotations/instances_train2017.json"
    source = opened("coco", write_coco(tmp_path), "test", test_json=name)
    assert source.name(0) == str(tmp_path / "train2017/30.png")


def test_objects_without_area_are_left_out_and_counted(tmp_path, content):
    boxes = {50: [30, 0, 5, 5], 51: [2, 3, 0, 4], 52: [2, 3, 4, -4], 53: [-5, -5, 5, 9], 54: [-2, -2, 40, 40]}
    for number, box in boxes.items():
        content["annotations"].append({"id": number, "image_id": 10, "category_id": 7, "bbox": box})
    with pytest.warns(UserWarning, match=r"2017.json: left out 4 objects without area .*first is annotation 50\)$"):
        source = opened("coco", write_coco(tmp_path, content))
    assert source.read(1).objects.boxes[2].tolist() == [-2, -2, 38, 38] and not source.has_masks  # one has no segment
    with pytest.warns(UserWarning, match="1 objects without a mask"):
        source = opened("coco", tmp_path, masks=True)
    assert source.has_masks and len(source.read(1).objects) == 2


def config(root, **settings):
    return DetectDataConfig(source="coco", root=str(root), val_fraction=0.0, short_side=20, **settings)


def test_polygons_that_are_none(tmp_path, content):
    first, second, _ = content["annotations"]
    first["segmentation"] = [[1, 1, 5, 5], first["segmentation"][0], [1, 2, 3, 4, 5, 6, 7]]
    second["segmentation"] = [[1, 1, 5, 5]]
    with pytest.warns(UserWarning, match=r"left out 3 polygons without three corners \(the first is annotation 5\)$"):
        source = opened("coco", write_coco(tmp_path, content))
    assert not source.has_masks and len(source.read(1).objects) == 2
    with pytest.warns(UserWarning, match="3 polygons.*; 1 objects without a mask"):
        source = opened("coco", tmp_path, masks=True)
    assert rle.area(source.read(1).objects.masks).tolist() == [24]


def test_a_polygon_outside_its_image_has_an_empty_mask_and_is_not_trained_on(tmp_path, content):
    content["annotations"][0]["segmentation"] = [[100, 100, 120, 100, 120, 120]]
    source = opened("coco", write_coco(tmp_path, content))
    assert rle.area(source.read(1).objects.masks).tolist() == [0, 24]
    data = build_detect(config(tmp_path), batch_size=1, seed=0)
    assert [len(batch.targets[0].labels) for batch in data.train] == [1]


@pytest.mark.parametrize("cache, far", [(False, 1e300), (True, 1e300), (False, 5e8)])
def test_an_image_with_an_outline_far_away_is_skipped_and_counted(tmp_path, content, cache, far):
    for number, corner in ((20, far), (30, 5.0)):
        polygon = [[corner - 5, 0, corner, 0, corner, 7]]
        entry = {"id": number, "image_id": number, "category_id": 7, "bbox": [1, 1, 5, 5], "segmentation": polygon}
        content["annotations"].append(entry)
    data = build_detect(config(write_coco(tmp_path, content), cache=cache), batch_size=1, seed=0)
    assert len(list(data.train)) == 3
    ((file, reason),) = data.skipped()
    assert file == str(tmp_path / "train2017/20.png") and "the outline of an object has" in reason


def test_images_without_objects_are_trained_on_if_asked_for(tmp_path):
    with pytest.warns(UserWarning, match=r"left out 2 of 3 training images, which have no objects .*2017/30.png\)"):
        assert len(build_detect(config(write_coco(tmp_path)), batch_size=1, seed=0).train) == 1
    data = build_detect(config(tmp_path, keep_empty=True), batch_size=3, seed=0)
    assert sorted(len(target.labels) for target in next(iter(data.train)).targets) == [0, 0, 2]  # a crowd is no target
    assert [len(batch.truths[0].objects) for batch in data.test] == [0, 2, 1]
    assert data.category_ids == [4, 7, 90] and data.has_masks


def changed(kind, place, **values):
    def change(content):
        content[kind][place].update(values)

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (changed("annotations", 0, image_id=11), r"annotation 5 is of image 11, which the file does not have"),
        (changed("annotations", 0, image_id="10"), r"annotation 5 is of image '10', which"),
        (changed("annotations", 0, image_id=[1]), r"annotation 5 is of image \[1\], which"),
        (changed("annotations", 1, id=5), r"the id 5 is that of two annotation entries"),
        (changed("annotations", 1, id=None), r"annotation number 1 has the id None, expected a whole number"),
        (changed("images", 1, id=30), r"the id 30 is that of two image entries"),
        (changed("categories", 1, id=90), r"the id 90 is that of two category entries"),
        (changed("categories", 1, name="brush"), r"names the class brush twice"),
        (changed("categories", 1, name=None), r"category 4 has the name None"),
        (changed("annotations", 0, category_id=5), r"annotation 5 has category 5, expected one of 3"),
        (
            changed("annotations", 0, bbox=[1, 2, math.nan, 4]),
            r"annotation 5 has bbox \[1, 2, nan, 4\], expected 4",
        ),
        (changed("annotations", 0, bbox=[1, 2, math.inf, 4]), r"annotation 5 has bbox"),
        (changed("annotations", 0, bbox=[1, 2, 10**400, 4]), r"annotation 5 has bbox"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotation 5 has bbox \[1, 2, 3\], expected 4 finite numbers"),
        (changed("annotations", 0, bbox="1234"), r"annotation 5 has bbox"),
        (changed("annotations", 0, area=-math.inf), r"annotation 5 has area \[-inf\], expected 1 finite"),
        (changed("annotations", 0, area=-3), r"annotation 5 has area -3, expected pixels"),
        (changed("annotations", 0, iscrowd=2), r"annotation 5 has iscrowd 2, expected 0 or 1"),
        (changed("annotations", 0, iscrowd=[0]), r"annotation 5 has iscrowd"),
        (
            changed("annotations", 0, segmentation=[[1, 1, math.nan, 5, 5, 5]]),
            r"annotation 5 has a polygon \[1, 1, n",
        ),
        (changed("annotations", 0, segmentation=["abc"]), r"annotation 5 has a polygon 'abc', expected finite numbers"),
        (changed("annotations", 0, segmentation=3), r"annotation 5 has segmentation 3, expected polygons or run len"),
        (
            changed("annotations", 2, segmentation={"size": [30, 20], "counts": [600]}),
            r"annotation 9 has a mask of size \[30, 20\], expected that of its image, \[20, 30\]",
        ),
        (
            changed("annotations", 2, segmentation={"size": [20, 30], "counts": [500, 500]}),
            r"annotation 9: run lengths sum to 1000, expected 20 x 30",
        ),
        (changed("images", 1, height=0), r"image 10 has height 0 and width 30, expected pixels"),
        (changed("images", 1, width=10**9), r"image 10 has 20000000000 pixels, more than the limit"),
        (changed("images", 1, file_name="../10.png"), r"image 10 has the file_name '../10.png', expected a path below"),
        (changed("images", 1, file_name="/10.png"), r"image 10 has the file_name '/10.png'"),
        (changed("images", 1, file_name=7), r"image 10 has the file_name 7"),
        (changed("images", 1, file_name="a\0b.png"), r"image 10 has the file_name 'a"),
        (
            lambda content: content.pop("categories"),
            r"expected lists of images, .*; categories is not one",
        ),
        (lambda content: content["images"].append(3), r"expected lists .*; images is not one"),
        (lambda content: content["categories"].clear(), r"names no classes"),
    ],
)
def test_what_contradicts_itself(tmp_path, content, change, message):
    write_coco(tmp_path, content)
    change(content)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        opened("coco", tmp_path)
    assert "\n" not in str(error.value) and "instances_train2017.json" in str(error.value)


def test_json_that_is_cut_off_or_of_another_kind(tmp_path, monkeypatch):
    path = write_coco(tmp_path) / "annotations/instances_train2017.json"
    whole = path.read_text()
    for text in (whole[:-20], "", "\xff", "[" * 10**5, whole + "}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="instances_train2017.json is not JSON, or is cut off"):
            opened("coco", tmp_path)
    for text in ("[]", '{"a": 1}', "3"):
        path.write_text(text)
        with pytest.raises(ValueError, match="train2017.json: expected lists of images, annotations, categories"):
            opened("coco", tmp_path)
    path.write_text(whole)
    monkeypatch.setenv("POINTMIX_MAX_ANNOTATION_BYTES", "100")
    with pytest.raises(ValueError, match="more than the limit of 100"):
        opened("coco", tmp_path)


def test_files_that_are_missing_or_damaged(tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train2017/20.png").write_bytes(b"no image")
    write_image(tmp_path / "train2017/10.png", (20, 31))
    source = opened("coco", tmp_path)
    with pytest.raises(UnreadableSample, match="not an image"):
        source.read(2)
    with pytest.raises(BadMask, match="10.png is 20x31, its annotations say 20x30"):
        source.read(1)
    (tmp_path / "train2017/20.png").unlink()
    with pytest.raises(FileNotFoundError, match="train2017.json: image 20: no file .*train2017/20.png"):
        opened("coco", tmp_path)
    with pytest.raises(FileNotFoundError, match="no file .*nothing.json"):
        opened("coco", tmp_path, train_json="nothing.json")
    with pytest.raises(ValueError, match="data.root is not set"):
        build_detect(DetectDataConfig(source="coco"), batch_size=1, seed=0)
    with pytest.raises(ValueError, match="data.test_fraction is set, but data.source is coco, which does not use it"):
        opened("coco", tmp_path, test_fraction=0.5)


def test_a_file_in_order_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened("coco", write_coco(tmp_path))
