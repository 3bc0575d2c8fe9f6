"""Published data sets, on small files of the same layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointmix.data.segment.sources.voc import voc_color
from tests.data.segment.images.files import open_source, stripes, write_image, write_mask


def test_ade20k(tmp_path):
    for split, short in (("training", "train"), ("validation", "val")):
        write_image(tmp_path / f"images/{split}/ADE_{short}_00000001.jpg")
        write_mask(tmp_path / f"annotations/{split}/ADE_{short}_00000001.png", stripes(8) * 20)
    train, test = open_source("ade20k", "train", tmp_path), open_source("ade20k", "test", tmp_path)
    assert len(train.classes) == len(set(train.classes)) == 150
    named = {0: "wall", 12: "person", 20: "car", 38: "railing", 115: "bag", 149: "flag"}
    assert {label: train.classes[label] for label in named} == named
    assert (train.read(0).label == stripes(8).astype(int) * 20 - 1).all()  # 0 becomes -1
    assert test.name(0).endswith("validation/ADE_val_00000001.jpg")
    assert open_source("ade20k", "val", tmp_path) is None
    with pytest.raises(FileNotFoundError, match="annotations/training"):
        open_source("ade20k", "train", tmp_path / "images")


def test_cityscapes(tmp_path):
    ids = np.array([7, 8, 11, 24, 26, 33, 0, 255], dtype=np.uint8)
    for split, city in (("train", "aachen"), ("val", "frankfurt")):
        stem = f"{split}/{city}/{city}_000000_000019"
        write_image(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png")
        write_mask(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", ids[stripes(8)])
        write_mask(tmp_path / f"gtFine/{stem}_gtFine_instanceIds.png", ids[stripes(8)])
        (tmp_path / f"gtFine/{stem}_gtFine_polygons.json").write_text("{}")
    source = open_source("cityscapes", "train", tmp_path)
    assert len(source) == 1 and len(source.classes) == len(source.palette) == 19
    assert (source.read(0).label == np.array([0, 1, 2, 11, 13, 18, -1, -1])[stripes(8)]).all()
    assert source.classes[13] == "car" and source.palette[13] == (0, 0, 142)
    assert "frankfurt" in open_source("cityscapes", "test", tmp_path).name(0)
    assert open_source("cityscapes", "val", tmp_path) is None
    next(tmp_path.rglob("*aachen*labelIds.png")).unlink()
    with pytest.raises(ValueError, match="1 image files have no mask: .*aachen_000000_000019_leftImg8bit.png"):
        open_source("cityscapes", "train", tmp_path)


@pytest.fixture
def voc(tmp_path):
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    palette = [value for label in range(256) for value in voc_color(label)]
    values = np.array([0, 1, 15, 20, 255], dtype=np.uint8)[stripes(5)]
    for split, stems in (("train", ("2007_000032", "2007_000039")), ("val", ("2007_000033",))):
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            write_image(tmp_path / f"JPEGImages/{stem}.jpg")
            write_mask(tmp_path / f"SegmentationClass/{stem}.png", values, palette)
    return tmp_path


def test_voc(voc):
    source = open_source("voc", "train", voc)
    assert len(source) == 2 and len(open_source("voc", "test", voc)) == 1 and open_source("voc", "val", voc) is None
    assert Image.open(voc / "SegmentationClass/2007_000032.png").mode == "P"
    assert (source.read(0).label == np.array([0, 1, 15, 20, -1])[stripes(5)]).all()
    assert len(source.classes) == 21 and source.classes[15] == "person"
    assert [source.palette[label] for label in (0, 1, 2, 8, 15)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (64, 0, 0),
        (192, 128, 128),
    ]
    (voc / "JPEGImages/2007_000039.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="line 2: no file .*2007_000039.jpg"):
        open_source("voc", "train", voc)


def test_more_masks_of_voc(voc):
    write_image(voc / "JPEGImages/2008_000001.jpg")
    write_mask(voc / "SegmentationClassAug/2008_000001.png", stripes(3))
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("2008_000001\n")
    assert open_source("voc", "train", voc).name(0).endswith("2008_000001.jpg")
    assert (open_source("voc", "train", voc).read(0).label == stripes(3)).all()
    assert open_source("voc", "test", voc).name(0).endswith("2007_000033.jpg")
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("2008_000001\n2007_000033\n")
    with pytest.raises(ValueError, match="trainaug.txt: 2007_000033 in val.txt too"):
        open_source("voc", "train", voc)


@pytest.fixture
def camvid(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            write_image(tmp_path / split / f"{name}.png")
            write_mask(tmp_path / f"{split}annot" / f"{name}.png", stripes(3, first=9))
    return tmp_path


def test_camvid(camvid):
    for split in ("train", "val", "test"):
        source = open_source("camvid", split, camvid)
        assert len(source) == 2 and len(source.classes) == len(source.palette) == 11
        assert (source.read(0).label == np.array([9, 10, -1])[stripes(3)]).all()  # 11 is void
    (camvid / "train.txt").write_text("/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/b.png\n")
    assert open_source("camvid", "train", camvid).name(0).endswith("b.png")
    (camvid / "train.txt").write_text("/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/a.png\n")
    with pytest.raises(ValueError, match="line 1"):
        open_source("camvid", "train", camvid)
    (camvid / "train.txt").write_text("b.png\nb.png\n")
    with pytest.raises(ValueError, match="line 2: b.png occurs twice"):
        open_source("camvid", "train", camvid)
    (camvid / "train.txt").write_text("c.png\n")
    with pytest.raises(FileNotFoundError, match="line 1: no image c.png"):
        open_source("camvid", "train", camvid)


def test_real_camvid():
    if "POINTMIX_DATA" not in os.environ:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    root = Path(os.environ["POINTMIX_DATA"], "camvid")
    for split, count in (("train", 80), ("val", 20), ("test", 40)):
        source = open_source("camvid", split, root)
        assert len(source) == count
        sample = source.read(0)
        assert sample.image.size == (480, 360) and sample.label.shape == (360, 480)
        assert -1 <= sample.label.min() and sample.label.max() <= 10
        if split == "train":  # the sky is above the road
            rows = np.arange(360)[:, None] * np.ones((1, 480))
            assert rows[sample.label == 0].mean() < rows[sample.label == 3].mean()
