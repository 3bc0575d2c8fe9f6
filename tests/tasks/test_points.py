from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pointmix import PointSet
from pointmix.tasks import ClassifyPoints

CLOUDS = PointSet.from_batch(torch.rand(4, 5, 3))


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, points):
        return self.logits[: points.num_sets]


def one_hot(guesses, classes, high=20.0):
    return (high * nn.functional.one_hot(torch.tensor(guesses), classes)).tolist()


def test_accuracies_confusion_and_loss():
    """Three of class 0 of which two are right, one of class 2 that is wrong, none of class 1."""
    task = ClassifyPoints(3)
    model, targets = Fixed(one_hot([0, 0, 1, 0], 3)), torch.tensor([0, 0, 0, 2])
    found = task.summarize(task.zeros(torch.device("cpu")) + task.measure(model, CLOUDS, targets))
    assert found["confusion"] == [[2, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert found["oa"] == 0.5 and found["macc"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["per_class"] == [pytest.approx(2 / 3), None, 0]
    assert found["loss"] == pytest.approx(2 * 20 / 4, abs=1e-6)


def test_sums_add_over_batches_and_processes():
    task = ClassifyPoints(2)
    a = task.measure(Fixed(one_hot([0, 1, 1, 1], 2)), CLOUDS, torch.tensor([0, 1, 0, 1]))
    b = task.measure(Fixed(one_hot([0], 2)), CLOUDS.unbind()[0], torch.tensor([1]))
    total = task.zeros(torch.device("cpu"))
    for sums in (a, b):
        total += sums
    assert total.dtype == torch.float64
    found = task.summarize(total)
    assert found["confusion"] == [[1, 1], [1, 2]] and found["oa"] == pytest.approx(3 / 5)


@pytest.mark.parametrize("classes, smoothing", [(2, 0.2), (5, 0.3)])
def test_smoothing_gives_nothing_back_to_the_true_class(classes, smoothing):
    """The true class keeps 1 - eps, each other gets eps / (K - 1)."""
    logits, targets = torch.randn(4, classes), torch.tensor([0, 1, 1, 0])
    wanted = torch.full((4, classes), smoothing / (classes - 1))
    wanted[range(4), targets] = 1 - smoothing
    loss = ClassifyPoints(classes, smoothing=smoothing).loss(Fixed(logits.tolist()), CLOUDS, targets)
    assert loss.item() == pytest.approx(-(wanted * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-6)
    plain = ClassifyPoints(classes).loss(Fixed(logits.tolist()), CLOUDS, targets)
    assert plain.item() == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize("classes, smoothing, limit", [(2, 0.5, 0.5), (2, 0.9, 0.5), (4, -0.1, 0.75), (1, 0.1, 0)])
def test_smoothing_out_of_range(classes, smoothing, limit):
    with pytest.raises(ValueError, match=f"mix.smoothing must be at least 0 and below {limit} for {classes} classes"):
        ClassifyPoints(classes, smoothing=smoothing)


def test_one_class_is_always_right():
    task = ClassifyPoints(1)
    found = task.summarize(task.measure(Fixed([[3.0]] * 4), CLOUDS, torch.zeros(4, dtype=torch.long)))
    assert found["oa"] == 1 and math.isclose(found["loss"], 0)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="nothing to evaluate: the loader gave no clouds"):
        ClassifyPoints(3).summarize(ClassifyPoints(3).zeros(torch.device("cpu")))
