from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pointmix.data.images.config import DataConfig
from pointmix.engine.train import train
from pointmix.tasks.classification.config import ClassLossConfig
from pointmix.tasks.classification.loss import ClassificationLoss, loss_weights, shared_among_others
from pointmix.tasks.classify_images import ClassifyImagesConfig


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


# ---- weights of classes ---------------------------------------------------------------------------------------------

LOGITS = [[2.0, 0.0, 1.0], [0.0, 1.0, -1.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
TARGETS = torch.tensor([0, 1, 2, 0])
WEIGHTS = [0.5, 2.0, 3.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weights_are_those_of_torch(smoothing):
    found = ClassificationLoss(3, smoothing=smoothing, weights=WEIGHTS)(Fixed(LOGITS), (IMAGES, TARGETS))
    expected = nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=smoothing)(torch.tensor(LOGITS), TARGETS)
    assert found.item() == pytest.approx(expected.item())
    ones = ClassificationLoss(3, smoothing=smoothing, weights=[1.0] * 3)(Fixed(LOGITS), (IMAGES, TARGETS))
    plain = ClassificationLoss(3, smoothing=smoothing)(Fixed(LOGITS), (IMAGES, TARGETS))
    assert ones.item() == pytest.approx(plain.item())


def test_weights_of_mixed_images():
    def loss(**kwargs):
        np.random.seed(0)
        options = {"mixup": 1.0, "smoothing": 0.1} | kwargs
        return ClassificationLoss(3, **options)(Fixed(LOGITS), (IMAGES.clone(), TARGETS)).item()

    assert loss(weights=[1.0] * 3) == pytest.approx(loss())
    assert loss(weights=[2.0] * 3) == pytest.approx(2 * loss())
    assert loss(weights=WEIGHTS) != pytest.approx(loss())


def test_balanced_weights_are_of_the_training_samples():
    train = SimpleNamespace(source=SimpleNamespace(targets=np.array([0, 0, 0, 1, 1, 2])), indices=np.array([0, 1, 3]))
    assert loss_weights(ClassLossConfig("balanced"), train, 3) == [0.75, 1.5, 0.0]
    assert loss_weights(ClassLossConfig(), train, 3) is None
    with pytest.raises(ValueError, match="loss.class_weights has 2 values for 3 classes"):
        loss_weights(ClassLossConfig((1.0, 2.0)), train, 3)
    with pytest.raises(ValueError, match="loss.class_weights is balanced and data.balanced is true"):
        ClassifyImagesConfig(data=DataConfig(balanced=True), loss=ClassLossConfig("balanced"))


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_weights(tiny_config, tmp_path):
    plain = tiny_config(epochs=1, max_steps=2)
    weighted = tiny_config(epochs=1, max_steps=2, output_dir=str(tmp_path / "weighted"),
                           loss=ClassLossConfig(tuple([9.0] + [1.0] * 9)))  # fmt: skip
    a, b = train(plain), train(weighted)
    assert a["info"]["class_weights"] is None and b["info"]["class_weights"] == [9.0] + [1.0] * 9
    assert a["history"][-1]["train_loss"] != b["history"][-1]["train_loss"]
