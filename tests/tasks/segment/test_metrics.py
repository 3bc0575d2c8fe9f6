from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.tasks.segment.inference.images import ImageInfer
from pointmix.tasks.segment.metrics import PartMetric, SegmentationMetric, from_confusion, object_ious
from tests.tasks.segment.standin import StandIn

NO_MODEL = nn.Identity()


class Others:
    """What another process accumulated, as a tensor a call."""

    def __init__(self, *tensors):
        self.tensors = list(tensors)

    def sum(self, x):
        return x + self.tensors.pop(0)

    def gather(self, items):
        return items


def batch(labels, sizes=None, category=None):
    labels = torch.tensor(labels)
    ptr = torch.tensor([0, *np.cumsum(sizes or [len(labels)])])
    points = PointSet(torch.zeros(len(labels), 3), torch.zeros(len(labels), 1), ptr)
    return SegmentBatch(points, labels, None if category is None else torch.tensor(category))


def measured(truth, predicted, classes, **kwargs):
    metric = SegmentationMetric(classes, infer=lambda model, points, category: torch.tensor(predicted))
    metric.update(NO_MODEL, batch(truth, **kwargs))
    return metric


def test_by_hand():
    # class 0: 2 of 3 right, one taken for 1; class 1: 1 of 2 right, one taken for 3; 2 does not occur; 3: not in truth
    found = measured([0, 0, 0, 1, 1, IGNORE], [0, 0, 1, 1, 3, 2], 4).compute()
    assert found["iou"] == [2 / 3, 1 / 3, None, 0.0]
    assert found["acc"] == [2 / 3, 1 / 2, None, None]
    assert found["miou"] == pytest.approx(1 / 3) and found["macc"] == pytest.approx(7 / 12)
    assert found["aacc"] == 3 / 5 and found["absent"] == 1 and found["unlabeled"] == 0
    assert found["confusion"] == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_against_sets_of_points():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, 7, 5000), rng.integers(0, 5, 5000)
    metric = SegmentationMetric(8, infer=lambda model, points, category: scores[points.pos[:, 0].long()])
    scores = torch.nn.functional.one_hot(torch.tensor(predicted), 8).double()
    for start in range(0, 5000, 999):  # several batches of scores
        rows = torch.arange(start, min(start + 999, 5000))
        points = PointSet(rows[:, None].double(), torch.zeros(len(rows), 1).double(), torch.tensor([0, len(rows)]))
        metric.update(NO_MODEL, SegmentBatch(points, torch.tensor(truth)[rows]))
    found, known = metric.compute(), truth != IGNORE
    ious = []
    for label in range(7):
        a, b = set(np.flatnonzero((truth == label) & known)), set(np.flatnonzero((predicted == label) & known))
        ious.append(len(a & b) / len(a | b))
    assert found["iou"][:7] == pytest.approx(ious, rel=1e-12) and found["iou"][7] is None
    assert found["miou"] == pytest.approx(np.mean(ious), rel=1e-12) and found["absent"] == 1
    shares = [((truth == c) & (predicted == c)).sum() / (truth == c).sum() for c in range(7)]
    assert found["macc"] == pytest.approx(np.mean(shares), rel=1e-12)


def test_counts_stay_exact_beyond_float64():
    metric = SegmentationMetric(2, infer=lambda model, points, category: torch.tensor([0, 1]))
    metric.counts += 2**53
    metric.update(NO_MODEL, batch([0, 1]))
    assert metric.counts.tolist() == [2**53 + 1, 2**53, 2**53, 2**53 + 1, 2**53]
    assert metric.counts.dtype == torch.int64


def test_samples_without_labels_are_counted_and_a_set_without_any_is_refused():
    metric = measured([0, IGNORE, IGNORE, IGNORE, 1], [0, 0, 0, 0, 1], 2, sizes=[1, 1, 2, 1])
    assert metric.compute()["unlabeled"] == 2 and metric.compute()["miou"] == 1.0
    with pytest.raises(ValueError, match="no point has a label"):
        measured([IGNORE] * 3, [0, 0, 0], 2).compute()


def test_processes_are_added_up():
    one, two = measured([0, 1, 1], [0, 1, 0], 2), measured([0, IGNORE], [1, 1], 2)
    both = measured([0, 1, 1, 0, IGNORE], [0, 1, 0, 1, 1], 2)
    one.combine(Others(two.counts))
    assert one.compute() == both.compute()
    one.reset()
    assert not one.counts.any()


def test_of_a_network_by_an_inference():
    model, points = StandIn(num_classes=3, every=4), PointSet.from_images(torch.rand(2, 3, 6, 8))
    coarse, lift = model(points, lift=False)
    labels = lift(coarse.feat).argmax(1)
    assert len(labels.unique()) > 1
    metric = SegmentationMetric(3, infer=ImageInfer().most_likely)
    metric.update(model, SegmentBatch(points, labels))
    assert metric.compute()["aacc"] == 1.0


def test_an_object_by_hand():
    """Parts 2, 3, 4; the truth has 2 and 3. Two of four points of part 2 go to part 0 of another category, where the
    second choice is right once."""
    labels = torch.tensor([2, 2, 2, 2, 3, 3])
    scores = torch.zeros(6, 6)
    scores[[0, 1], 2] = 1.0
    scores[[2, 3], 0] = 1.0
    scores[2, 2], scores[3, 3] = 0.5, 0.5
    scores[[4, 5], 3] = 1.0
    _, own, present = object_ious(scores, labels, [2, 3, 4]).tolist()
    assert own == pytest.approx((3 / 4 + 2 / 3 + 1) / 3, rel=1e-15)  # part 4: absent in both
    assert present == pytest.approx((2 / 4 + 1) / 2, rel=1e-15)
    scores[0, 4] = 2.0  # now part 4 is predicted, which only the first convention counts
    _, own, present = object_ious(scores, labels, [2, 3, 4]).tolist()
    assert own == pytest.approx((2 / 4 + 2 / 3 + 0) / 3, rel=1e-15)
    assert present == pytest.approx((1 / 4 + 1) / 2, rel=1e-15)


def test_instance_and_class_means():
    categories = {"cap": [0, 1], "mug": [2, 3], "car": [4]}
    labels = [0, 1, 0, 1, 2, 3, IGNORE]
    scores = torch.nn.functional.one_hot(torch.tensor([0, 1, 0, 0, 3, 3, 0]), 5).float()
    metric = PartMetric(5, categories=categories, infer=lambda model, points, category: scores)
    metric.update(NO_MODEL, batch(labels, sizes=[2, 2, 2, 1], category=[0, 0, 1, 2]))
    found = metric.compute()
    cap, mug = (1 + 1 / 4) / 2, 1 / 4
    assert found["instance_miou"] == pytest.approx((1 + 1 / 4 + 1 / 4) / 3)
    assert found["class_miou"] == pytest.approx((cap + mug) / 2)
    assert found["per_category"] == {"cap": [2, cap, cap], "mug": [1, mug, mug]}
    assert found["unlabeled"] == 1 and found["aacc"] == 4 / 6 and set(metric.part_scores) < set(found)

    other = PartMetric(5, categories=categories, infer=metric.infer)
    other.combine(Others(metric.counts, metric.sums))
    assert other.compute() == found
    other.reset()
    with pytest.raises(ValueError, match="no object has a label"):
        other.compute()
    with pytest.raises(ValueError, match="expected a category for each"):
        other.update(NO_MODEL, batch(labels))


def test_a_perfect_prediction_has_one_everywhere():
    labels = torch.randint(0, 6, (50,))
    scores = torch.nn.functional.one_hot(labels, 6).float()
    assert object_ious(scores, labels, list(range(6))).tolist() == [1, 1, 1]
    found = from_confusion(torch.diag(torch.tensor([3, 0, 5])))
    assert (found["miou"], found["macc"], found["aacc"], found["absent"]) == (1, 1, 1, 1)
