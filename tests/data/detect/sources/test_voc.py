from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect
from pointmix.io.errors import BadMask
from tests.data.detect.files import OBJECT, SIZE, opened, write_mask, write_voc


def test_boxes_begin_at_pixel_1_and_difficult_objects_are_crowds(tmp_path):
    with pytest.warns(UserWarning, match="train.txt: 1 of 2 images have no mask, so none are read; data.masks true"):
        source = opened("voc", write_voc(tmp_path))
    assert len(source) == 2 and len(source.classes) == 20 and not source.has_masks
    assert [source.read(0).image_id, source.read(1).image_id] == ["one", "two"]
    objects = source.read(0).objects
    assert objects.boxes.tolist() == [[2, 3, 8, 9], [10, 0, 30, 20]]
    assert [source.classes[label] for label in objects.labels] == ["cat", "dog"]
    assert objects.crowd.tolist() == [False, True] and objects.area.tolist() == [36, 400]
    assert source.size(1) == SIZE and source.has_objects(0)
    assert opened("voc", tmp_path, "val") is None and opened("voc", tmp_path, "test").read(0).image_id == "three"
    (tmp_path / "ImageSets/Main/test.txt").write_text("two")
    assert opened("voc", tmp_path, "val").read(0).image_id == "three"
    assert opened("voc", tmp_path, "test").read(0).image_id == "two"


def test_masks_number_the_objects_in_the_order_of_the_file(tmp_path):
    objects = (("dog", 0, 40, 1, 50, 9), ("cat", 0, 11, 1, 30, 20))  # the first lies outside the image
    with pytest.warns(UserWarning, match="left out 1 objects without area in the image .*one.xml: object 1"):
        source = opened("voc", write_voc(tmp_path, objects), masks=True)
    assert len(source) == 1 and source.has_masks
    (mask,) = rle.decode(source.read(0).objects.masks, SIZE)
    expected = np.zeros(SIZE, np.uint8)
    expected[0:20, 10:30] = 1
    assert (mask == expected).all() and source.read(0).objects.area.tolist() == [400]


def test_masks_are_read_if_every_image_has_one(tmp_path):
    source = opened("voc", write_voc(tmp_path, masks=("one", "two", "three")))
    first, second = rle.decode(source.read(1).objects.masks, SIZE)
    assert first.sum() == 36 - 6 and second.sum() == 400  # without the outline
    assert not opened("voc", tmp_path, masks=False).has_masks
    cfg = DetectDataConfig(source="voc", root=str(tmp_path), short_side=20, val_fraction=0.0)
    data = build_detect(cfg, batch_size=2, seed=0)
    assert [len(target.labels) for target in next(iter(data.train)).targets] == [1, 1] and data.has_masks
    write_mask(tmp_path / "SegmentationObject/one.png", np.full(SIZE, 3, np.uint8))
    with pytest.raises(BadMask, match="one.png has object 3, but its xml file has 2 objects"):
        source.read(0)
    write_mask(tmp_path / "SegmentationObject/one.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(BadMask, match="one.png is 3x4, the image is 20x30"):
        source.read(0)
    write_mask(tmp_path / "SegmentationObject/one.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(BadMask, match="one.png is RGB, expected one channel of labels, the palette's numbers"):
        source.read(0)
    (tmp_path / "SegmentationObject/one.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 images have no mask; no file .*one.png"):
        opened("voc", tmp_path, masks=True)


def test_other_classes_and_some_of_vocs(tmp_path):
    source = opened("voc", write_voc(tmp_path), classes=("dog",), masks=False)
    assert [len(source.read(0).objects), source.read(0).objects.labels.tolist()] == [1, [0]]
    xml = tmp_path / "Annotations/one.xml"
    xml.write_text(xml.read_text().replace("cat", "tile"))
    with pytest.raises(ValueError, match="one.xml: object 1 is of class 'tile', expected one of aeroplane, "):
        opened("voc", tmp_path)
    assert opened("voc", tmp_path, classes=("tile", "dog")).read(0).objects.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[:-30], r"one.xml is not XML, or is cut off: "),
        (lambda text: "", r"one.xml is not XML, or is cut off: no element found"),
        (lambda text: text.replace("annotation", "html"), r"one.xml holds 'html', expected an annotation"),
        (lambda text: text.replace("<width>30</width>", ""), r"one.xml has size/width None, expected a finite number"),
        (lambda text: text.replace(">30<", ">30.5<", 1), r"one.xml: the size is 30.5 x 20, expected whole numbers"),
        (lambda text: text.replace(">30<", ">-3<", 1), r"one.xml: the size is -3 x 20, expected whole numbers"),
        (lambda text: text.replace("<xmin>3<", "<xmin>nan<"), r"one.xml: object 1 has bndbox/xmin 'nan', expected a"),
        (lambda text: text.replace("<xmin>3</xmin>", ""), r"object 1 has bndbox/xmin None"),
        (lambda text: text.replace("<xmin>3<", "<xmin>three<"), r"object 1 has bndbox/xmin 'three'"),
        (lambda text: '<!DOCTYPE a [<!ENTITY b "c">]>' + text, r"one.xml has a document type, expected plain elements"),
        (
            lambda text: '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]>' + text,
            r"one.xml has a document type|not XML",
        ),
        (lambda text: text.replace("cat", "&b;"), r"one.xml is not XML, or is cut off: undefined entity"),
    ],
)
def test_xml_that_is_wrong(tmp_path, change, message):
    path = write_voc(tmp_path) / "Annotations/one.xml"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        opened("voc", tmp_path)


def test_sizes_and_files_that_do_not_fit(tmp_path):
    path = write_voc(tmp_path) / "Annotations/one.xml"
    path.write_text(path.read_text().replace(">30<", ">31<", 1))
    with pytest.raises(BadMask, match="one.jpg is 20x30, its annotations say 20x31"):
        opened("voc", tmp_path, masks=False).read(0)
    size = "<size><height>20</height><width>30</width></size>"
    path.write_text(f"<annotation>{size}{OBJECT.format('cat', 0, 9, 9, 3, 3)}</annotation>")
    with pytest.warns(UserWarning, match="left out 1 objects without area"):
        assert not opened("voc", tmp_path, masks=False).has_objects(0)
    (tmp_path / "ImageSets/Main/train.txt").write_text("two\ntwo\n")
    with pytest.raises(ValueError, match="the image .*two.jpg is named twice"):
        opened("voc", tmp_path)
    (tmp_path / "ImageSets/Main/train.txt").write_text("one")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train.txt, line 1: no file .*one.xml"):
        opened("voc", tmp_path)
