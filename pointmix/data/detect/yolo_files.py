"""The files of YOLO data, `data.yaml` and a text file of labels an image: read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pointmix.data.detect.annotations import FEWEST_CORNERS, Annotation, LeftOut, outline_box
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line
from pointmix.utils.yaml_check import check_yaml


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


def read_yaml(path: Path) -> YoloData:
    """Read and check `data.yaml`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or lacks names, or a value is of another kind than expected.
    """
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
