from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pointmix.tasks import Classify


class Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        self.seen = x
        return self.logits[: len(x)]


IMAGES = torch.rand(4, 3, 8, 8)


def test_measure_counts_top1_top5_and_loss():
    logits = torch.zeros(4, 8)
    logits += -torch.arange(8.0)  # class 0 first, class 7 last
    targets = torch.tensor([0, 1, 4, 5])
    sums = Classify(8).measure(Fixed(logits.tolist()), IMAGES, targets)
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    assert sums.tolist() == pytest.approx([1, 3, loss, 4])
    assert Classify(8).summarize(2 * sums) == pytest.approx({"top1": 0.25, "top5": 0.75, "loss": loss / 4})


def test_totals_are_exact_where_float32_would_not_count_on():
    total = Classify(2).zeros(torch.device("cpu"))
    assert total.tolist() == [0, 0, 0, 0]
    for _ in range(2):
        total += torch.tensor([2.0**24, 1, 0, 1])
        total += torch.tensor([1.0, 0, 0, 0])
    assert total[0].item() == 2**25 + 2


def test_top5_of_fewer_than_five_classes_is_all():
    sums = Classify(3).measure(Fixed([[1.0, 2.0, 3.0]] * 4), IMAGES, torch.tensor([0, 1, 2, 2]))
    assert sums[:2].tolist() == [2, 4]


def test_plain_and_smoothed_loss():
    model, targets = Fixed([[2.0, 0.0]] * 4), torch.zeros(4, dtype=torch.long)
    right, wrong = math.log1p(math.exp(-2)), 2 + math.log1p(math.exp(-2))
    assert Classify(2).loss(model, IMAGES, targets).item() == pytest.approx(right)
    smoothed = Classify(2, smoothing=0.2).loss(model, IMAGES, targets).item()
    assert smoothed == pytest.approx(0.9 * right + 0.1 * wrong)


def test_mixing_changes_images_and_follows_numpys_generator():
    losses = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        model, images = Fixed([[2.0, 0.0], [0.0, 1.0]] * 2), torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 3, 8, 8)
        losses.append(Classify(2, mixup=1.0).loss(model, images, torch.tensor([0, 1, 1, 1])).item())
        assert not torch.equal(model.seen, torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 3, 8, 8))
    assert losses[0] == losses[1] != losses[2]


def test_bad_input():
    with pytest.raises(ValueError, match="mix.smoothing must be"):
        Classify(2, smoothing=1.0)
    with pytest.raises(ValueError, match="even number of images in a batch, got 3"):
        Classify(2, cutmix=1.0).loss(Fixed([[0.0, 0.0]]), IMAGES[:3], torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="nothing to evaluate"):
        Classify(2).summarize(torch.zeros(4))
