"""AP equals pycocotools' on ground truth that is perturbed in many ways."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest

from pointmix.data.detect import masks as rle
from pointmix.data.detect.sample import Objects, Truth
from pointmix.tasks.detect.ap import Evaluated, average_precision
from pointmix.tasks.detect.found import Found

COCO_STATS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", None, None, "ar"]  # of its summary
CLASSES, SIZE = 5, (200, 260)


def masks_of(boxes, size):
    """Ellipses within boxes."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes:
        inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
        masks += rle.encode(inside[None])
    return tuple(masks)


def some_boxes(rng, number, size):
    """Boxes of small, medium and large areas within an image."""
    side = np.exp(rng.uniform(np.log(6), np.log(230), (number, 2)))
    first = rng.uniform(0, 1, (number, 2)) * np.maximum(np.array(size[::-1]) - side, 1)
    boxes = np.concatenate([first, first + side], 1)
    return np.minimum(boxes, np.array([size[1], size[0], size[1], size[0]]))


def make_truth(rng, image_id, *, size=SIZE, number=None, classes=range(CLASSES), crowds=0.0):
    number = int(rng.integers(1, 12)) if number is None else number
    boxes = some_boxes(rng, number, size)
    masks = masks_of(boxes, size)
    area = rle.area(masks)
    labels = rng.choice(list(classes), number).astype(np.int64)
    objects = Objects(boxes, labels, rng.random(number) < crowds, area, masks)
    return Truth(image_id, f"{image_id}.jpg", size, objects)


def detected(boxes, labels, scores, size):
    boxes = np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    return Found(boxes, labels[order].astype(np.int64), scores[order], masks_of(boxes, size))


def shifted(rng, boxes, amount):
    side = boxes[:, 2:] - boxes[:, :2]
    return boxes + rng.normal(0, amount, boxes.shape) * np.concatenate([side, side], 1)


def perfect(rng, truth, *, noise=0.05):
    o = truth.objects
    return shifted(rng, o.boxes, noise), o.labels.copy(), rng.uniform(0.3, 1, len(o.labels))


def shifts(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1)
        yield truth, perfect(rng, truth, noise=0.12)


def shuffled_scores(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1)
        boxes, labels, scores = perfect(rng, truth)
        yield truth, (boxes, labels, rng.integers(1, 4, len(scores)) / 4)  # with many ties


def duplicates(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1)
        found = [perfect(rng, truth) for _ in range(3)]
        yield truth, tuple(map(np.concatenate, zip(*found, strict=True)))


def wrong_classes(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1)
        boxes, labels, scores = perfect(rng, truth)
        yield truth, (boxes, np.where(rng.random(len(labels)) < 0.4, (labels + 1) % CLASSES, labels), scores)


def missing(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1)
        boxes, labels, scores = perfect(rng, truth)
        kept = rng.random(len(labels)) < 0.6
        yield truth, (boxes[kept], labels[kept], scores[kept])


def crowds(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1, crowds=0.4)
        found = [perfect(rng, truth) for _ in range(2)]
        yield truth, tuple(map(np.concatenate, zip(*found, strict=True)))


def empty_images(rng):
    for i in range(12):
        truth = make_truth(rng, i + 1, number=0 if i % 3 == 0 else 6)
        boxes, labels, scores = perfect(rng, truth)
        if i % 3 == 0 and i % 2 == 0:  # something is found where nothing is
            boxes, labels, scores = some_boxes(rng, 4, SIZE), rng.integers(0, CLASSES, 4), rng.random(4)
        if i % 4 == 1:
            boxes, labels, scores = boxes[:0], labels[:0], scores[:0]
        yield truth, (boxes, labels, scores)


def other_sizes(rng):
    for i in range(12):
        size = tuple(int(side) for side in rng.integers(20, 300, 2))
        truth = make_truth(rng, i + 1, size=size)
        yield truth, perfect(rng, truth, noise=0.1)


def many_detections(rng):
    for i in range(4):
        truth = make_truth(rng, i + 1, classes=[0, 1], number=8)
        boxes, labels, scores = perfect(rng, truth)
        more = some_boxes(rng, 200, SIZE)
        every = np.concatenate([more, boxes]), np.concatenate([np.zeros(200, int), labels])
        yield truth, (*every, np.concatenate([rng.uniform(0, 1, 200), scores]))


def category_gaps(rng):
    """Classes 1 and 3 have no object, and 3 is found nevertheless."""
    for i in range(12):
        truth = make_truth(rng, i + 1, classes=[0, 2, 4])
        boxes, labels, scores = perfect(rng, truth)
        yield truth, (boxes, np.where(rng.random(len(labels)) < 0.2, 3, labels), scores)


WAYS = [shifts, shuffled_scores, duplicates, wrong_classes, missing, crowds, empty_images, other_sizes,
        many_detections, category_gaps]  # fmt: skip


def made(way):
    rng = np.random.default_rng(WAYS.index(way))
    return [Evaluated(truth, detected(*found, truth.size)) for truth, found in way(rng)]


def reference(images, kind):
    """pycocotools by itself, from files as COCO has them; detections as results, by its own loadRes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = [], []
    for image in images:
        objects, found, number = image.truth.objects, image.found, image.truth.image_id
        for i, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            row = {"id": len(truth) + 1, "image_id": number, "category_id": 10 * int(objects.labels[i]) + 3}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": objects.area[i], "iscrowd": int(objects.crowd[i])}
            truth.append(row | {"segmentation": objects.masks[i]})
        for i, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
            row = {"image_id": number, "category_id": 10 * int(found.labels[i]) + 3, "score": found.scores[i]}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1]} if kind == "bbox" else {"segmentation": found.masks[i]}
            results.append(row)
    with redirect_stdout(io.StringIO()):
        coco = COCO()
        sizes = [{"id": im.truth.image_id, "height": im.truth.size[0], "width": im.truth.size[1]} for im in images]
        categories = [{"id": 10 * label + 3} for label in range(CLASSES)]
        coco.dataset = {"images": sizes, "categories": categories, "annotations": truth, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("library", ["faster_coco_eval", "pycocotools"])
def test_ap_equals_pycocotools(way, library, monkeypatch):
    images = made(way)
    if library == "pycocotools":
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)  # cannot be imported
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = reference(images, kind)
        found = average_precision(images[::-1], CLASSES, kind)  # their order does not matter
        for stat, key in zip(expected.stats, COCO_STATS, strict=False):
            if key is not None:
                value = found[f"{name}_{key}"]
                assert (-1 if value is None else value) == pytest.approx(stat, abs=1e-12), (kind, key)
        assert 0 < found[f"{name}_ap"] < 0.9
        precision = expected.eval["precision"][:, :, :, 0, 2]
        per_class = [None if (precision[..., k] == -1).all() else precision[..., k].mean() for k in range(CLASSES)]
        assert found[f"{name}_ap_per_class"] == pytest.approx(per_class, abs=1e-12)
        assert found[f"{name}_ap50_per_class"] == pytest.approx(
            [p and float(precision[0, :, k].mean()) for k, p in enumerate(per_class)], abs=1e-12
        )
    assert way is not shifts or None not in found.values()  # objects of all areas are there
    if way is category_gaps:
        assert [k for k, value in enumerate(found["mask_ap_per_class"]) if value is None] == [1, 3]


def test_nothing_is_printed_and_texts_are_image_ids_too(capsys, monkeypatch):
    images = made(shifts)
    named = [Evaluated(Truth(f"image {i:02}", "", im.truth.size, im.truth.objects), im.found)
             for i, im in enumerate(images)]  # fmt: skip
    expected = average_precision(images, CLASSES, "bbox")
    assert average_precision(named, CLASSES, "bbox") == expected
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert average_precision(named, CLASSES, "bbox")["box_ap"] == pytest.approx(expected["box_ap"], abs=1e-12)
    assert capsys.readouterr() == ("", "")


def test_no_detection_at_all_is_an_ap_of_0():
    images = [Evaluated(im.truth, Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), ())) for im in made(shifts)]
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        found = average_precision(images, CLASSES, kind)
        assert found[f"{name}_ap"] == 0 and found[f"{name}_ar"] == 0
