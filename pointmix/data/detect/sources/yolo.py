"""Data in the form of Ultralytics YOLO: a text file an image, with a class and a box or a polygon a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml

from pointmix.data.detect.annotations import FEWEST_CORNERS, Annotation, LeftOut, outline_box
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.image_files import AnnotatedFiles, AnnotatedImage
from pointmix.data.detect.settings import chosen_classes, unused, with_masks
from pointmix.data.detect.source import register_detect_source
from pointmix.data.paths import existing, files_below, read_lines
from pointmix.io.image_files import MODES, is_image
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line
from pointmix.utils.yaml_check import check_yaml

FILES = ("data.yaml", "config.yaml", "dataset.yaml")


@dataclass(frozen=True)
class YoloData:
    """What `data.yaml` says.

    Args:
        path: the file.
        base: folder that its paths are relative to.
        names: of the classes by their numbers.
        splits: folders or lists of images of each split.
        skip_missing: leave images without a label file out; otherwise they have no objects.
    """

    path: Path
    base: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    skip_missing: bool


@register_detect_source("yolo", check=unused("root", "classes"))
def open_yolo(config: DetectDataConfig, split: str) -> AnnotatedFiles | None:
    """The data that ROOT/data.yaml (or config.yaml, or ROOT itself, if it is a file) describes: `path`, `train`, `val`,
    `test`, `names`, and `skip_if_label_file_missing` of LightlyTrain. The labels of images/A/B.jpg are labels/A/B.txt.
    Where there is no test split, "val" is the test split. Images are found relative to `path`, or to the folder above
    it. All boxes, or polygons with `data.masks`, are in sides of the image.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file cannot be read, or a line is not as expected; the message names both.
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
    left_out, images = LeftOut(), []
    for image, label_file in _files(data, split):
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
    images, masks = with_masks(config, images, left_out)
    left_out.warn(f"{data.path}, {split}")
    names = tuple(data.names[number] for number in labels)
    return AnnotatedFiles(images, MODES[config.in_chans or 3], names, tuple(labels), masks)


def read_yaml(path: Path) -> YoloData:
    """Read and check `data.yaml`."""
    path = regular_file(path)
    check_limit("METADATA_BYTES", path.stat().st_size, str(path))
    try:
        text = path.read_text("utf-8-sig")
        check_yaml(text, str(path))
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected train, val and names")
    found = values.get("names")
    if isinstance(found, list):
        found = dict(enumerate(found))
    whole = isinstance(found, Mapping) and all(type(number) is int and number >= 0 for number in found)
    if not isinstance(found, Mapping) or not whole or not all(isinstance(name, str | int) for name in found.values()):
        raise ValueError(f"{path}: names is {one_line(repr(found), 80)}, expected a list of names, or number: name")
    base = values.get("path") or "."
    if not isinstance(base, str):
        raise ValueError(f"{path}: path is {base!r}, expected a folder")
    splits = {split: _places(values.get(split), split, path) for split in ("train", "val", "test")}
    return YoloData(
        path,
        path.parent / base,
        {number: str(found[number]) for number in sorted(found)},
        {split: places for split, places in splits.items() if places},
        values.get("skip_if_label_file_missing") is True,
    )


def _places(value: Any, split: str, path: Path) -> list[str]:
    places = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(place, str) for place in places):
        raise ValueError(f"{path}: {split} is {one_line(repr(value), 80)}, expected a folder, or a list of them")
    return [place for place in places if place]


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
        where = next((base / place for base in (data.base, data.base.parent) if (base / place).exists()), None)
        if where is None:
            raise FileNotFoundError(f"{data.path}: {split} is {place}; no {data.base / place}")
        if where.is_dir():
            labels = data.base / _label_place(place)
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


def read_labels(path: Path, names: Mapping[int, str], labels: Mapping[int, int], left_out: LeftOut) -> list[Annotation]:
    """The objects in a label file, in sides of the image. Those outside the image or without an area, and polygons of
    fewer than three corners are left out, and so are other classes than those of `labels`.

    Raises:
        ValueError: naming the file and the line.
    """
    check_limit("METADATA_BYTES", path.stat().st_size, str(path))
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    annotations = []
    for number, line in enumerate(lines, start=1):
        if not (words := line.split()):
            continue
        where = f"{path}, line {number}"
        category, values = _numbers(words, where)
        if category not in names:
            known = f"one of {len(names)} numbers from {min(names)} to {max(names)}"
            raise ValueError(f"{where}: class {words[0]}, expected {known} that data.yaml names")
        if category not in labels:
            continue
        if len(values) == 4:
            x, y, width, height = values
            one = Annotation((x - width / 2, y - height / 2, x + width / 2, y + height / 2), labels[category])
        elif len(values) % 2:
            raise ValueError(f"{where}: {len(values)} coordinates, expected x y width height, or x y of each corner")
        elif len(values) < 2 * FEWEST_CORNERS:
            left_out.add("polygons of fewer than three corners", where)
            continue
        else:
            polygon = np.array(values).reshape(-1, 2)
            one = Annotation(outline_box([polygon]), labels[category], (polygon,))
        if one.has_area((1.0, 1.0)):
            annotations.append(one)
        else:
            left_out.add("objects without area in the image", where)
    return annotations


def _numbers(words: list[str], where: str) -> tuple[int, list[float]]:
    """The class and the coordinates of a line."""
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{where}: {one_line(error, 80)}, expected numbers") from error
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: NaN or infinite, expected finite numbers")
    if values[0] != int(values[0]):
        raise ValueError(f"{where}: class {words[0]}, expected a whole number")
    return int(values[0]), values[1:]
