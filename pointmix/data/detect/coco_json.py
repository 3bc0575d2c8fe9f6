"""COCO's json of the objects of many images: read and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Float64

from pointmix.data.detect import masks as rle
from pointmix.data.detect.annotations import FEWEST_CORNERS, Annotation, LeftOut
from pointmix.data.detect.sample import Rle
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line

Entry = Mapping[str, Any]
LISTS = ("images", "annotations", "categories")


def read_json(path: Path) -> dict[str, list[Entry]]:
    """The lists of images, annotations and categories.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is too large, no JSON, or of another kind.
    """
    path = regular_file(path)
    check_limit("ANNOTATION_BYTES", path.stat().st_size, str(path))
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # of UTF-8 as well
        raise ValueError(f"{path} is not JSON, or is cut off: {one_line(error, 120)}") from error
    for name in LISTS:
        found = content.get(name) if isinstance(content, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise ValueError(f"{path}: expected lists of {', '.join(LISTS)}; {name} is not one")
    return {name: content[name] for name in LISTS}


def read_categories(entries: list[Entry], path: Path) -> dict[int, str]:
    """Names of the categories by their ids, which rise."""
    names: dict[int, str] = {}
    for number, entry in _by_id(entries, "category", path).items():
        if not isinstance(name := entry.get("name"), str) or not name:
            raise ValueError(f"{path}: category {number} has the name {one_line(repr(name), 80)}, expected a text")
        names[number] = name
    return {number: names[number] for number in sorted(names)}


def read_images(entries: list[Entry], path: Path) -> dict[int, tuple[str, tuple[int, int]]]:
    """File name and H, W of each image by its id."""
    found = {}
    for number, entry in _by_id(entries, "image", path).items():
        name, size = entry.get("file_name"), (entry.get("height"), entry.get("width"))
        text = isinstance(name, str) and name.isprintable() and name
        if not text or PurePath(text).is_absolute() or ".." in PurePath(text).parts:
            shown = one_line(repr(name), 80)
            raise ValueError(f"{path}: image {number} has the file_name {shown}, expected a path below its folder")
        height, width = size
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise ValueError(f"{path}: image {number} has height {height!r} and width {width!r}, expected pixels")
        check_limit("IMAGE_PIXELS", height * width, f"{path}: image {number}")
        found[number] = text, (height, width)
    return found


def read_annotations(
    content: Mapping[str, list[Entry]],
    images: Mapping[int, tuple[str, tuple[int, int]]],
    names: Mapping[int, str],
    labels: Mapping[int, int],
    path: Path,
    left_out: LeftOut,
) -> dict[int, list[Annotation]]:
    """The annotations of each image by its id.

    Objects without an area in the image and polygons of fewer than three corners are left out and counted; categories
    that `labels` does not have are left out.

    Raises:
        ValueError: naming the file, the id of an annotation, and what was expected.
    """
    found: dict[int, list[Annotation]] = {number: [] for number in images}
    for number, entry in _by_id(content["annotations"], "annotation", path).items():
        where = f"{path}: annotation {number}"
        if type(image := entry.get("image_id")) is not int or image not in images:
            raise ValueError(f"{where} is of image {image!r}, which the file does not have")
        if type(category := entry.get("category_id")) is not int or category not in names:
            raise ValueError(f"{where} has category {category!r}, expected one of {len(names)} that the file names")
        if category not in labels:
            continue
        size = images[image][1]
        x, y, width, height = _floats(entry.get("bbox"), where, "bbox", 4)
        if type(crowd := entry.get("iscrowd", 0)) not in (int, bool) or crowd not in (0, 1):
            raise ValueError(f"{where} has iscrowd {crowd!r}, expected 0 or 1")
        area = None if entry.get("area") is None else _floats([entry["area"]], where, "area", 1)[0]
        if area is not None and area < 0:
            raise ValueError(f"{where} has area {area:g}, expected pixels")
        segment = _segment(entry.get("segmentation"), size, where, left_out)
        box = (x, y, x + width, y + height)
        one = Annotation(box, labels[category], segment, bool(crowd), area)
        if width <= 0 or height <= 0 or not one.has_area(size):
            left_out.add("objects without area in the image", f"annotation {number}")
        else:
            found[image].append(one)
    return found


def _by_id(entries: list[Entry], what: str, path: Path) -> dict[int, Entry]:
    """Entries by their ids, which must be there and differ."""
    found: dict[int, Entry] = {}
    for place, entry in enumerate(entries):
        if type(number := entry.get("id")) is not int:
            raise ValueError(f"{path}: {what} number {place} has the id {number!r}, expected a whole number")
        if number in found:
            raise ValueError(f"{path}: the id {number} is that of two {what} entries, expected each once")
        found[number] = entry
    return found


def _floats(values: object, where: str, name: str, count: int | None) -> list[float]:
    """Finite numbers."""
    if isinstance(values, list) and all(type(value) in (int, float) for value in values):
        try:
            found = [float(value) for value in values]
        except OverflowError:
            found = [math.inf]
        if (count is None or len(values) == count) and all(map(math.isfinite, found)):
            return found
    expected = "finite numbers" if count is None else f"{count} finite numbers"
    raise ValueError(f"{where} has {name} {one_line(repr(values), 80)}, expected {expected}")


def _segment(
    value: object, size: tuple[int, int], where: str, left_out: LeftOut
) -> tuple[Float64[np.ndarray, "_ 2"], ...] | Rle | None:
    """Polygons or run lengths; None if there are none."""
    if isinstance(value, dict):
        if value.get("size") != list(size):
            expected = f"that of its image, {list(size)} (rows, columns)"
            raise ValueError(f"{where} has a mask of size {one_line(repr(value.get('size')), 80)}, expected {expected}")
        try:
            return rle.from_counts(value.get("counts"), size)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where} has segmentation {one_line(repr(value), 80)}, expected polygons or run lengths")
    polygons = []
    for corners in value or ():
        numbers = _floats(corners, where, "a polygon", None)
        if len(numbers) % 2 or len(numbers) < 2 * FEWEST_CORNERS:
            left_out.add("polygons without three corners", where.rpartition(": ")[2])
        else:
            polygons.append(np.array(numbers).reshape(-1, 2))
    return tuple(polygons) or None
