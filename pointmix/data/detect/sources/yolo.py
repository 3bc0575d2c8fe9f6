"""Data in the form of Ultralytics YOLO: a text file an image, with a class and a box or a polygon a line."""

from __future__ import annotations

from pathlib import Path, PurePath

from pointmix.data.detect.annotations import LeftOut
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.image_files import AnnotatedFiles, AnnotatedImage
from pointmix.data.detect.settings import chosen_classes, with_masks
from pointmix.data.detect.source import register_detect_source
from pointmix.data.detect.yolo_files import YoloData, read_labels, read_yaml
from pointmix.data.paths import existing, files_below, read_lines
from pointmix.io.image_files import MODES, is_image

FILES = ("data.yaml", "config.yaml", "dataset.yaml")


@register_detect_source("yolo", uses=("root", "classes"))
def open_yolo(config: DetectDataConfig, split: str) -> AnnotatedFiles | None:
    """The data that ROOT/data.yaml (or config.yaml, or ROOT itself, if it is a file) describes: `path`, `train`, `val`,
    `test`, `names`, and `skip_if_label_file_missing` of LightlyTrain. The labels of images/A/B.jpg are labels/A/B.txt.
    Where there is no test split, "val" is the test split. Objects have masks if all of them are polygons; `data.masks:
    true` leaves the others out. Images without a label file have no objects.

    Images are found relative to `path`, or to the folder above it, when their labels may be below `path`. A leading ../
    of a place that is not there is left out, as Roboflow's files need it.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file cannot be read, or a line is not as expected, the message names both; or no image of the
            split has a label file.
    """
    data = read_yaml(_yaml_file(config.root))
    labels = chosen_classes(config, data.names, data.path)
    if split == "val" and "test" not in data.splits:
        return None
    if split == "test" and "test" not in data.splits:
        split = "val"
    if split not in data.splits:
        if split == "val":
            return None
        raise ValueError(f"{data.path} names no {split} images, expected train, and val or test")
    left_out, images, files = LeftOut(), [], _files(data, split)
    if not any(label_file.is_file() for _, label_file in files):
        raise ValueError(f"{data.path}: none of {len(files)} images for {split} has a label file; no {files[0][1]}")
    for image, label_file in files:
        if label_file.is_file():
            annotations = read_labels(label_file, data.names, labels, left_out)
        elif data.skip_missing:
            left_out.add("images without a label file", str(image))
            continue
        else:
            annotations = []
        images.append(AnnotatedImage(image, image.stem, annotations, None))
    if len({image.image_id for image in images}) < len(images):  # of several folders
        images = [AnnotatedImage(one.path, str(one.path), one.annotations, None) for one in images]
    images, masks = with_masks(config, images, left_out, f"{data.path}, {split}")
    left_out.warn(f"{data.path}, {split}")
    names = tuple(data.names[number] for number in labels)
    return AnnotatedFiles(images, MODES[config.in_chans or 3], names, tuple(labels), masks)


def _yaml_file(root: str | None) -> Path:
    place = existing(root)
    if place.suffix in (".yaml", ".yml"):
        return place
    if not place.is_dir():
        raise FileNotFoundError(f"data.root: no folder {place}; expected one with {FILES[0]}")
    for name in FILES:
        if (place / name).is_file():
            return place / name
    raise FileNotFoundError(f"data.root {place}: none of {', '.join(FILES)}; expected one of them")


def _files(data: YoloData, split: str) -> list[tuple[Path, Path]]:
    """The images of a split, each with the place of its label file."""
    files: list[tuple[Path, Path]] = []
    for place in data.splits[split]:
        places = (data.base, place), (data.base.parent, place), (data.base, place.removeprefix("../"))
        base, place = next((each for each in places if Path(*each).exists()), places[0])
        where = base / place
        if not where.exists():
            raise FileNotFoundError(f"{data.path}: {split} is {place}; no {where}")
        if where.is_dir():
            own, beside = (root / _label_place(place) for root in (data.base, base))
            labels = own if own.is_dir() else beside
            images = list(filter(is_image, files_below(where)))
            files += [(image, labels / image.relative_to(where).with_suffix(".txt")) for image in images]
            continue
        for number, line in enumerate(read_lines(where), start=1):
            image = where.parent / line
            if not image.is_file():
                raise FileNotFoundError(f"{where}, line {number}: no file {image}")
            files.append((image, where.parent / _label_place(line).with_suffix(".txt")))
    if not files:
        raise ValueError(f"{data.path}: no image for {split}, expected some")
    return files


def _label_place(place: str) -> Path:
    """The path with its last folder `images` replaced by `labels`."""
    parts = list(PurePath(place).parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts)
