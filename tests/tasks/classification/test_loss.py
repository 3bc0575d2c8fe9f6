from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pointmix.tasks.classification.loss import ClassificationLoss, shared_among_others


class Fixed(nn.Module):
    """Gives the same logits for any input, which it keeps."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        self.seen = x
        return self.logits[: len(x)]


IMAGES = torch.rand(4, 3, 8, 8)


def test_plain_and_smoothed_loss():
    model, targets = Fixed([[2.0, 0.0]] * 4), torch.zeros(4, dtype=torch.long)
    right, wrong = math.log1p(math.exp(-2)), 2 + math.log1p(math.exp(-2))
    assert ClassificationLoss(2)(model, (IMAGES, targets)).item() == pytest.approx(right)
    smoothed = ClassificationLoss(2, smoothing=0.2)(model, (IMAGES, targets)).item()
    assert smoothed == pytest.approx(0.9 * right + 0.1 * wrong)


def test_mixing_changes_images_and_follows_numpys_generator():
    losses = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        model, images = Fixed([[2.0, 0.0], [0.0, 1.0]] * 2), torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 3, 8, 8)
        losses.append(ClassificationLoss(2, mixup=1.0)(model, (images, torch.tensor([0, 1, 1, 1]))).item())
        assert not torch.equal(model.seen, torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 3, 8, 8))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("classes, smoothing", [(2, 0.2), (5, 0.3)])
def test_shared_smoothing_gives_nothing_back_to_the_true_class(classes, smoothing):
    """The true class keeps 1 - eps, each other gets eps / (K - 1)."""
    logits, targets = torch.randn(4, classes), torch.tensor([0, 1, 1, 0])
    wanted = torch.full((4, classes), smoothing / (classes - 1))
    wanted[range(4), targets] = 1 - smoothing
    model = Fixed(logits.tolist())
    loss = ClassificationLoss(classes, smoothing=shared_among_others(smoothing, classes))(model, (IMAGES, targets))
    assert loss.item() == pytest.approx(-(wanted * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-6)
    plain = ClassificationLoss(classes, smoothing=shared_among_others(0.0, classes))(model, (IMAGES, targets))
    assert plain.item() == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-6)


@pytest.mark.parametrize("classes, smoothing, limit", [(2, 0.5, 0.5), (2, 0.9, 0.5), (4, -0.1, 0.75), (1, 0.1, 0)])
def test_shared_smoothing_out_of_range(classes, smoothing, limit):
    with pytest.raises(ValueError, match=f"mix.smoothing must be at least 0 and below {limit} for {classes} classes"):
        shared_among_others(smoothing, classes)


def test_bad_input():
    with pytest.raises(ValueError, match="mix.smoothing must be"):
        ClassificationLoss(2, smoothing=1.0)
    with pytest.raises(ValueError, match="even number of images in a batch, got 3"):
        ClassificationLoss(2, cutmix=1.0)(Fixed([[0.0, 0.0]]), (IMAGES[:3], torch.zeros(3, dtype=torch.long)))
