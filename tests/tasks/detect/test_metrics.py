from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix.engine.evaluate import evaluate
from pointmix.tasks.detect import found as found_module
from pointmix.tasks.detect.metrics import DetectionMetric
from pointmix.tasks.protocols import Metric
from tests.tasks.detect.standin import StandIn, batch, truth

LEFT, RIGHT = [4, 4, 24, 24], [30, 10, 50, 30]  # in pixels; half of it on the lattice


def half(box):
    return [side / 2 for side in box]


def both(first=0, second=1):
    return [(half(LEFT), first, 0.9), (half(RIGHT), second, 0.8)]


def test_detections_are_compared_in_pixels_of_the_image():
    metric = DetectionMetric(3)
    assert isinstance(metric, Metric)
    model = StandIn(both())
    result = evaluate(model, [batch(truth(7, [(LEFT, 0), (RIGHT, 1)]))], metric=metric)
    assert result["box_ap"] == pytest.approx(1) and result["mask_ap"] == pytest.approx(1)
    assert result["objects"] == [1, 1, 0] and result["absent"] == 1
    assert result["box_ap_per_class"][2] is None and result["mask_ap_small"] == pytest.approx(1)
    assert result["box_ap_medium"] is None
    ((points, sizes),) = model.calls
    assert sizes.tolist() == [[20, 30]] and points.layout.size == (32, 32)
    wrong = evaluate(StandIn(both(1, 0)), [batch(truth(7, [(LEFT, 0), (RIGHT, 1)]))], metric=metric)
    assert wrong["box_ap"] == 0 and wrong["mask_ap"] == 0


def test_masks_are_compared_where_network_and_data_have_them():
    one = truth(7, [(LEFT, 0), (RIGHT, 1)])
    assert "mask_ap" not in evaluate(StandIn(both(), masks=False), [batch(one)], metric=DetectionMetric(2))
    boxes_only = truth(7, [(LEFT, 0), (RIGHT, 1)], masks=False)
    result = evaluate(StandIn(both()), [batch(boxes_only)], metric=DetectionMetric(2))
    assert "mask_ap" not in result and result["box_ap"] == pytest.approx(1)


class Others:
    """Other processes that have these images."""

    def __init__(self, images):
        self.images = images

    def sum(self, x):
        raise AssertionError("not used")

    def gather(self, items):
        return items + self.images


def test_an_image_counts_once_whichever_process_has_it():
    metric, other = DetectionMetric(2), DetectionMetric(2)
    metric.update(StandIn(both()), batch(truth(1, [(LEFT, 0), (RIGHT, 1)])))
    metric.update(StandIn(both(1, 1)), batch(truth(2, [(LEFT, 0), (RIGHT, 1)])))
    other.update(StandIn([]), batch(truth(3, [(RIGHT, 1)])))
    other.update(StandIn(both()), batch(truth(1, [(LEFT, 0), (RIGHT, 1)])))  # a sampler filled its part up
    metric.combine(Others(other.images))
    result = metric.compute()
    assert result["objects"] == [2, 3]
    alone = DetectionMetric(2)
    alone.images = metric.images[:3]
    assert alone.compute() == result
    twice = DetectionMetric(2)
    twice.combine(Others(metric.images))  # a process without a batch
    assert twice.compute() == result
    metric.reset()
    with pytest.raises(ValueError, match="nothing to evaluate: there is no image"):
        metric.compute()


def test_crowds_are_no_objects_of_a_class():
    metric = DetectionMetric(2)
    metric.update(StandIn(both()), batch(truth("a", [(LEFT, 0), (RIGHT, 1)], crowd=[False, True])))
    result = metric.compute()
    assert result["objects"] == [1, 0] and result["box_ap"] == pytest.approx(1)
    metric.reset()
    metric.update(StandIn(both()), batch(truth("a", [(RIGHT, 1)], crowd=[True])))
    with pytest.raises(ValueError, match="nothing to evaluate: no object in any of 1 images"):
        metric.compute()


def test_masks_are_pasted_one_at_a_time_and_kept_as_run_lengths(monkeypatch):
    shapes = []
    encode = found_module.encode

    def counted(masks):
        shapes.append(masks.shape)
        return encode(masks)

    monkeypatch.setattr(found_module, "encode", counted)
    metric = DetectionMetric(2)
    metric.update(StandIn(both() * 5), batch(truth(1, [(LEFT, 0)], size=(400, 600))))
    assert shapes == [(1, 400, 600)] * 10
    (image,) = metric.images
    assert sum(len(mask["counts"]) for mask in image.found.masks) < 5000
    kept = [value for value in image.found if isinstance(value, np.ndarray | torch.Tensor)]
    assert sum(value.nbytes for value in kept) == 10 * (4 + 1 + 1) * 8
