"""COCO, and other data with COCO's json."""

from __future__ import annotations

from pathlib import Path

from pointmix.data.detect.annotations import LeftOut
from pointmix.data.detect.coco_json import read_annotations, read_categories, read_images, read_json
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.image_files import AnnotatedFiles, AnnotatedImage
from pointmix.data.detect.settings import chosen_classes, with_masks
from pointmix.data.detect.source import register_detect_source
from pointmix.data.paths import existing
from pointmix.io.image_files import MODES

JSON = {"train": "annotations/instances_train2017.json", "test": "annotations/instances_val2017.json"}


@register_detect_source("coco", uses=("root", "classes", "train_json", "val_json", "test_json"))
def open_coco(config: DetectDataConfig, split: str) -> AnnotatedFiles | None:
    """ROOT/annotations/instances_train2017.json with ROOT/train2017, and instances_val2017.json with ROOT/val2017,
    which is the test split; there is none for "val". `data.train_json`, `data.val_json` and `data.test_json` name other
    files. The images of A_B.json are in ROOT/B, in ROOT/SPLIT, beside the file, in ROOT, or in one of ROOT/images/B,
    ROOT/images/SPLIT and ROOT/images.

    Labels are in the order of the category ids, which may have gaps. The other rules are those of `read_annotations`.

    Raises:
        FileNotFoundError: a file is missing; the message names the first one.
        ValueError: the json is cut off or contradicts itself.
    """
    root = existing(config.root)
    given = {"train": config.train_json, "val": config.val_json, "test": config.test_json}[split]
    if given is None and split == "val":
        return None
    path = root / (given or JSON[split])
    content = read_json(path)
    names = read_categories(content["categories"], path)
    labels = chosen_classes(config, names, path)
    found = read_images(content["images"], path)
    left_out = LeftOut()
    annotations = read_annotations(content, found, names, labels, path, left_out)
    folder = _image_folder(root, path, split, next((name for name, _ in found.values()), ""))
    images = []
    for number, (name, size) in found.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{path}: image {number}: no file {folder / name}")
        images.append(AnnotatedImage(folder / name, number, annotations[number], size))
    images, masks = with_masks(config, images, left_out, str(path))
    left_out.warn(str(path))
    classes = tuple(names[number] for number in labels)
    return AnnotatedFiles(images, MODES[config.in_chans or 3], classes, tuple(labels), masks)


def _image_folder(root: Path, path: Path, split: str, name: str) -> Path:
    """The folder in which the first image is; the usual one if it is in none."""
    usual = path.stem.rpartition("_")[2]  # train2017 of instances_train2017
    folders = root / usual, root / split, path.parent, root
    places = [*folders, *(root / "images" / folder for folder in (usual, split, ""))]
    return next((place for place in places if (place / name).is_file()), places[0])
