"""Detections as files: COCO's results of known images, files with images, categories and annotations, and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pointmix.data.detect import masks
from pointmix.tasks.detect.ap import Evaluated, corner_and_size
from pointmix.tasks.detect.found import Found
from pointmix.utils.atomic import write_text
from pointmix.utils.json_values import Json


def result_rows(found: Found, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Json]]:
    """The detections in one image as COCO's results: image_id, category_id, bbox, score and, of masks, segmentation.

    Args:
        category_ids: number of each class in the files of the data.
    """
    rows: list[dict[str, Json]] = []
    columns = (corner_and_size(found.boxes), found.labels.tolist(), found.scores.tolist())
    for i, (box, label, score) in enumerate(zip(*columns, strict=True)):
        row: dict[str, Json] = {"image_id": image_id, "category_id": category_ids[label]}
        row |= {"bbox": box, "score": score}
        if found.masks is not None:
            mask = found.masks[i]
            row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
        rows.append(row)
    return rows


def write_results(images: Iterable[Evaluated], category_ids: Sequence[int], path: str | Path) -> None:
    """Write COCO's results of an evaluation, which its tools and servers take."""
    found = [(image.found, image.truth.image_id) for image in images]
    rows = [row for detections, image_id in found for row in result_rows(detections, image_id, category_ids)]
    write_text(path, json.dumps(rows) + "\n")


class CocoFile:
    """A file of detections in images that were not known before, with the images and the classes in it.

    Args:
        classes, category_ids: names and numbers of the classes.
    """

    def __init__(self, classes: Sequence[str], category_ids: Sequence[int]) -> None:
        self.category_ids = category_ids
        pairs = zip(category_ids, classes, strict=True)
        self.categories = [{"id": number, "name": name} for number, name in pairs]
        self.images: list[dict[str, Json]] = []
        self.annotations: list[dict[str, Json]] = []

    def add(self, file_name: str, size: tuple[int, int], found: Found) -> None:
        """Add an image of H, W pixels; images are numbered from 1."""
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "height": size[0], "width": size[1]})
        boxes = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
        areas = (boxes if found.masks is None else masks.area(found.masks)).tolist()
        for row, area in zip(result_rows(found, number, self.category_ids), areas, strict=True):
            self.annotations.append({"id": len(self.annotations) + 1, **row, "area": area, "iscrowd": 0})

    def write(self, path: str | Path) -> None:
        """Write COCO's form or, if the name ends in .csv, a row for each box."""
        if Path(path).suffix.lower() == ".csv":
            self._write_csv(path)
            return
        parts = {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        write_text(path, json.dumps(parts) + "\n")

    def _write_csv(self, path: str | Path) -> None:
        files = {image["id"]: image["file_name"] for image in self.images}
        names = {category["id"]: category["name"] for category in self.categories}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "class", "category_id", "score", "x", "y", "width", "height"])
        for row in self.annotations:
            number = row["category_id"]
            writer.writerow([files[row["image_id"]], names[number], number, row["score"], *row["bbox"]])
        write_text(path, text.getvalue())
