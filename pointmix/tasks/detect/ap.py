"""Average precision as COCO defines it, computed by faster_coco_eval, or by pycocotools where that is missing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from pointmix.data.detect import masks
from pointmix.data.detect.sample import Rle, Truth
from pointmix.tasks.detect.found import Found
from pointmix.tasks.protocols import Metrics

Kind = Literal["bbox", "segm"]
PREFIX: dict[Kind, str] = {"bbox": "box", "segm": "mask"}
AREAS = ("small", "medium", "large")  # below 32 x 32 pixels, below 96 x 96, and above


@dataclass(frozen=True)
class Evaluated:
    """An image, what is in it and what was found in it."""

    truth: Truth
    found: Found


def average_precision(images: Sequence[Evaluated], num_classes: int, kind: Kind) -> Metrics:
    """AP and AR over images, in each of which the 100 detections of a class with the highest scores count.

    Metrics, with "mask" for "box" if `kind` is "segm"; None where no object counts:
        box_ap: mean over classes and the IoU thresholds 0.5, 0.55, ..., 0.95 of the precision at 101 recalls. Classes
            without an object are left out.
        box_ap50, box_ap75: at an IoU of 0.5 and 0.75.
        box_ap_small, box_ap_medium, box_ap_large: of objects of these areas, see `AREAS`.
        box_ar: mean recall over classes and thresholds.
        box_ap_per_class, box_ap50_per_class: lists.

    Args:
        images: each once.
        kind: compare boxes, or masks, which all objects and detections then need.
    """
    coco_class, evaluator = _evaluator()
    order = sorted(images, key=_by_id)  # ties between scores are decided by the order of images
    sizes = [{"id": i, "height": image.truth.size[0], "width": image.truth.size[1]} for i, image in enumerate(order, 1)]
    categories = [{"id": label + 1} for label in range(num_classes)]
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        both = []
        for annotations in (_objects(order, kind), _detections(order, kind)):
            coco = coco_class()
            coco.dataset = {"images": sizes, "categories": categories, "annotations": annotations}
            coco.createIndex()
            both.append(coco)
        evaluation = evaluator(*both, kind)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., -1]  # (10 IoUs, 101 recalls, classes, 4 areas)
    recall = np.asarray(evaluation.eval["recall"])[..., -1]  # (10 IoUs, classes, 4 areas)
    name, every, classes = PREFIX[kind], precision[..., 0], range(num_classes)
    values: Metrics = {f"{name}_ap": _mean(every), f"{name}_ap50": _mean(every[0]), f"{name}_ap75": _mean(every[5])}
    values |= {f"{name}_ap_{area}": _mean(precision[..., i]) for i, area in enumerate(AREAS, 1)}
    values[f"{name}_ar"] = _mean(recall[..., 0])
    values[f"{name}_ap_per_class"] = [_mean(every[:, :, k]) for k in classes]
    values[f"{name}_ap50_per_class"] = [_mean(every[0, :, k]) for k in classes]
    return values


def _evaluator() -> tuple[Any, Any]:
    """The classes COCO and COCOeval of the library that is installed."""
    try:
        library = import_module("faster_coco_eval")
        return library.COCO, library.COCOeval_faster
    except ImportError:
        return import_module("pycocotools.coco").COCO, import_module("pycocotools.cocoeval").COCOeval


def _by_id(image: Evaluated) -> tuple[bool, int | str]:
    """Numbers in their order, then texts."""
    name = image.truth.image_id
    return isinstance(name, str), name


def _objects(images: Sequence[Evaluated], kind: Kind) -> list[dict[str, Any]]:
    """The objects of all images as annotations, numbered from 1: an annotation 0 would count as not found."""
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        objects = image.truth.objects
        columns = (corner_and_size(objects.boxes), objects.labels.tolist(), objects.crowd, objects.area.tolist())
        for i, (box, label, crowd, area) in enumerate(zip(*columns, strict=True)):
            row = {"id": len(rows) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": area}
            rows.append(row | {"iscrowd": int(crowd)} | _segmentation(objects.masks, i, kind))
    return rows


def _detections(images: Sequence[Evaluated], kind: Kind) -> list[dict[str, Any]]:
    """The detections in all images as annotations."""
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        found = image.found
        boxes = corner_and_size(found.boxes)
        areas = [w * h for _, _, w, h in boxes] if kind == "bbox" else masks.area(found.masks or ()).tolist()
        columns = (boxes, found.labels.tolist(), found.scores.tolist(), areas)
        for i, (box, label, score, area) in enumerate(zip(*columns, strict=True)):
            row = {"id": len(rows) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": area}
            rows.append(row | {"iscrowd": 0, "score": score} | _segmentation(found.masks, i, kind))
    return rows


def corner_and_size(boxes: Float64[np.ndarray, "M 4"]) -> list[list[float]]:
    """x, y, width and height, as COCO has them."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def _segmentation(own: Sequence[Rle] | None, i: int, kind: Kind) -> dict[str, Any]:
    if kind == "bbox":
        return {}
    assert own is not None, "AP of masks needs masks"
    return {"segmentation": own[i]}


def _mean(values: Float[np.ndarray, "*n"]) -> float | None:
    """The mean of those that count; -1 marks the others."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None
