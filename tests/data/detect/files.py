"""Small image files with annotations in each form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pointmix.data.detect import sources  # noqa: F401  registers them
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.source import DETECT_SOURCES

SIZE = (20, 30)  # rows, columns


def opened(source, root, split="train", **settings):
    """A split of a source."""
    config = DetectDataConfig(source=source, root=str(root), **settings)
    return DETECT_SOURCES.checked(config).open(config, split)


def write_image(path: Path, size=SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_mask(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def coco_content():
    """Three images; categories with gaps in another order than their ids."""
    images = [
        {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]} for number in (30, 10, 20)
    ]
    square = [[2.0, 3.0, 8.0, 3.0, 8.0, 7.0, 2.0, 7.0]]
    crowd = {"size": list(SIZE), "counts": [40, 10, 550]}
    annotations = [
        {"id": 5, "image_id": 10, "category_id": 90, "bbox": [2, 3, 6, 4], "segmentation": square, "area": 23.5},
        {"id": 3, "image_id": 10, "category_id": 4, "bbox": [1, 1, 5, 5], "segmentation": square, "iscrowd": 0},
        {"id": 9, "image_id": 20, "category_id": 4, "bbox": [2, 0, 1, 10], "segmentation": crowd, "iscrowd": 1},
    ]
    categories = [{"id": 90, "name": "brush"}, {"id": 4, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, content=None, test=None) -> Path:
    """The usual files of COCO; returns the root."""
    for split, value in (("train2017", content), ("val2017", test)):
        value = coco_content() if value is None else value
        for entry in value["images"]:
            if isinstance(entry.get("file_name"), str):
                write_image(root / split / entry["file_name"])
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(value))
    return root


def write_yolo(root: Path, labels=None, **values) -> Path:
    """images/{train,val}/{a,b}.png with labels; returns the root."""
    labels = {"train/a": "3 0.5 0.5 0.2 0.4\n\n1 0.1 0.1 0.3 0.1 0.3 0.5\n", "val/a": "1 0.5 0.5 1 1"} | (labels or {})
    for split in ("train", "val"):
        for stem in ("a", "b"):
            write_image(root / "images" / split / f"{stem}.png")
    for name, text in labels.items():
        (path := root / "labels" / f"{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": {1: "cat", 3: "dog"}} | values
    content = {key: value for key, value in content.items() if value is not None}
    (root / "data.yaml").write_text(json.dumps(content))
    if isinstance(content.get("names"), dict):  # json has no whole numbers as keys
        lines = "\n".join(f"  {number}: {name}" for number, name in content["names"].items())
        text = json.dumps({key: value for key, value in content.items() if key != "names"})[1:-1]
        (root / "data.yaml").write_text("{" + text + ", names: {" + lines.replace("\n", ",").strip() + "}}")
    return root


OBJECT = (
    "<object><name>{0}</name><difficult>{1}</difficult><bndbox><xmin>{2}</xmin><ymin>{3}</ymin><xmax>{4}</xmax>"
    "<ymax>{5}</ymax></bndbox></object>"
)


def write_voc(root: Path, objects=(("cat", 0, 3, 4, 8, 9), ("dog", 1, 11, 1, 30, 20)), masks=("one",)) -> Path:
    """Images one, two of train and three of val; the objects are those of every image."""
    for lists in ("Main", "Segmentation"):
        (root / "ImageSets" / lists).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / lists / "train.txt").write_text("one\ntwo\n" if lists == "Main" else "one\n")
        (root / "ImageSets" / lists / "val.txt").write_text("three\n")
    (root / "Annotations").mkdir()
    for stem in ("one", "two", "three"):
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        text = "".join(OBJECT.format(*one) for one in objects)
        size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{text}</annotation>")
    for stem in masks:
        values = np.zeros(SIZE, np.uint8)
        values[3:9, 2:8], values[0:20, 10:30], values[3, 2:8] = 1, 2, 255
        write_mask(root / "SegmentationObject" / f"{stem}.png", values)
    return root
