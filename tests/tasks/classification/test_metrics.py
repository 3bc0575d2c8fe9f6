from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.tasks.classification.metrics import Confusion, TopAccuracy

CLOUDS = PointSet.from_batch(torch.rand(4, 5, 3))
IMAGES = torch.rand(4, 3, 8, 8)


class Fixed(nn.Module):
    """Gives the same logits for any images or clouds."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits[: x.num_sets if isinstance(x, PointSet) else len(x)]


def one_hot(guesses, classes, high=20.0):
    return (high * nn.functional.one_hot(torch.tensor(guesses), classes)).tolist()


def measured(metric, *updates):
    metric.reset()
    for model, inputs, targets in updates:
        metric.update(model, (inputs, torch.tensor(targets)))
    return metric.compute()


def test_top1_top5_and_loss():
    logits = torch.zeros(4, 8) - torch.arange(8.0)  # class 0 first, class 7 last
    targets = torch.tensor([0, 1, 4, 5])
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    model, metric = Fixed(logits.tolist()), TopAccuracy()
    assert metric.batch_sums(model, (IMAGES, targets)).tolist() == pytest.approx([1, 3, loss, 4])
    for repeats in (1, 2):
        found = measured(metric, *[(model, IMAGES, [0, 1, 4, 5])] * repeats)
        assert found == pytest.approx({"top1": 0.25, "top5": 0.75, "loss": loss / 4})


def test_top5_of_fewer_than_five_classes_is_all():
    assert measured(TopAccuracy(), (Fixed([[1.0, 2.0, 3.0]] * 4), IMAGES, [0, 1, 2, 2]))["top5"] == 1


def test_accuracies_confusion_and_loss():
    """Three of class 0 of which two are right, one of class 2 that is wrong, none of class 1."""
    found = measured(Confusion(3), (Fixed(one_hot([0, 0, 1, 0], 3)), CLOUDS, [0, 0, 0, 2]))
    assert found["confusion"] == [[2, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert found["oa"] == 0.5 and found["macc"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["per_class"] == [pytest.approx(2 / 3), None, 0]
    assert found["loss"] == pytest.approx(2 * 20 / 4, abs=1e-6)


def test_confusion_adds_over_batches():
    first = (Fixed(one_hot([0, 1, 1, 1], 2)), CLOUDS, [0, 1, 0, 1])
    found = measured(Confusion(2), first, (Fixed(one_hot([0], 2)), CLOUDS.unbind()[0], [1]))
    assert found["confusion"] == [[1, 1], [1, 2]] and found["oa"] == pytest.approx(3 / 5)


def test_one_class_is_always_right():
    found = measured(Confusion(1), (Fixed([[3.0]] * 4), CLOUDS, [0, 0, 0, 0]))
    assert found["oa"] == 1 and math.isclose(found["loss"], 0)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate: the loader gave no images"):
        TopAccuracy().compute()
    with pytest.raises(ValueError, match="nothing to evaluate: the loader gave no clouds"):
        Confusion(3, unit="clouds").compute()
