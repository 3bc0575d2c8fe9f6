from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointmix import PointSet, create_segmenter
from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.nn.reducer import Reducer
from pointmix.tasks.segment.config import LossConfig
from pointmix.tasks.segment.loss import (
    SMOOTH,
    SegmentationLoss,
    dice_loss,
    lovasz_softmax,
)
from tests.tasks.segment.standin import StandIn

WEIGHTS = [0.5, 2.0, 1.0]


@pytest.fixture
def batch():
    points = PointSet.from_images(torch.rand(2, 3, 6, 8, dtype=torch.float64))
    labels = torch.randint(-1, 3, (96,))
    return SegmentBatch(points, labels)


@pytest.fixture
def model():
    return StandIn(num_classes=3, place=1.0, every=4).double()


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("rows", [4, 20, 96, 1 << 17])
@pytest.mark.parametrize("weights, smoothing", [(None, 0.0), (WEIGHTS, 0.0), (None, 0.2), (WEIGHTS, 0.2)])
def test_cross_entropy_in_parts_is_the_plain_one(batch, model, rows, weights, smoothing):
    coarse, lift = model(batch.points, lift=False)
    plain = F.cross_entropy(
        lift(coarse.feat),
        batch.labels,
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    loss = SegmentationLoss(3, LossConfig(smoothing=smoothing), weights=weights, rows=rows)(model, batch)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, other in zip(gradients(loss, model), gradients(plain, model), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-12)


class Halved(Reducer):
    """Logits of blocks of two by two cells."""

    def forward(self, points, category=None, lift=False):
        coarse = super().forward(points)
        return coarse, points.layout.lift(points, coarse, 2)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("form", ["grid", "sparse", "cloud"])
def test_compiled_cross_entropy_is_that_of_torch(form, weights):
    """Of grids with cropped cells, too."""
    points = PointSet.from_images(torch.rand(2, 3, 6, 7, dtype=torch.float64))
    points = {"grid": points, "sparse": points.as_sparse(), "cloud": points.as_cloud()}[form]
    loss, labels = SegmentationLoss(3, LossConfig(), weights=weights), torch.randint(-1, 3, (84,))
    model, found = Halved(3, 3, kernel=2, stride=2, padding=0), []
    for dtype in (torch.float32, torch.float64):
        own, batch = model.to(dtype), SegmentBatch(points.with_feat(points.feat.to(dtype)), labels)
        value = loss(own, batch)
        found.append((value, *gradients(value, own)))
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 96])
def test_dice_and_lovasz_in_parts_are_the_plain_ones(batch, model, rows):
    config = LossConfig(cross_entropy=0.0, dice=0.5, lovasz=2.0)
    coarse, lift = model(batch.points, lift=False)
    known = batch.labels != IGNORE
    chance, labels = lift(coarse.feat).softmax(1)[known], batch.labels[known]
    own = F.one_hot(labels, 3).double()
    common, both = (chance * own).sum(0), chance.sum(0) + own.sum(0)
    plain = 0.5 * (1 - (2 * common + SMOOTH) / (both + SMOOTH)).mean() + 2 * lovasz_softmax(chance, labels)
    loss = SegmentationLoss(3, config, rows=rows)(model, batch)
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, other in zip(gradients(loss, model), gradients(plain, model), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-12)


def test_the_networks_of_the_package(batch):
    kwargs = dict(depths=[1, 1], dims=[8, 8], mlp_ratios=[2, 2], heads=2, head_dim=4)
    kwargs |= dict(windows_per_side=[1, 1], centers_per_side=[2, 2], neck_dim=8, decoder_dim=8, decoder_drop_rate=0.0)
    model = create_segmenter("coc_tiny", 3, **kwargs).double()
    images = PointSet.from_images(torch.rand(2, 3, 13, 18, dtype=torch.float64))
    labels = torch.randint(-1, 3, (2 * 13 * 18,))
    plain = F.cross_entropy(model(images), labels, ignore_index=IGNORE)
    loss = SegmentationLoss(3, LossConfig(), rows=40)(model, SegmentBatch(images, labels))
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-12)
    for ours, other in zip(gradients(loss, model), gradients(plain, model), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [None, [0.0, 1.0, 1.0]])
def test_without_a_labeled_point_the_loss_is_zero_and_has_gradients(batch, model, weights):
    config = LossConfig(dice=1.0, lovasz=1.0)
    nothing = batch._replace(labels=torch.full_like(batch.labels, IGNORE if weights is None else 0))
    if weights is not None:
        config = LossConfig()  # all points are of a class of weight 0
    loss = SegmentationLoss(3, config, weights=weights)(model, nothing)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(loss, model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_of_single_precision_at_least(batch, dtype):
    model = StandIn(num_classes=3).to(dtype)
    points = batch.points.with_feat(batch.points.feat.to(dtype))
    loss = SegmentationLoss(3, LossConfig(dice=1.0, lovasz=1.0))(model, batch._replace(points=points))
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_lovasz_of_hard_predictions_is_one_minus_iou():
    labels, predicted = torch.randint(0, 4, (2, 60))
    labels[labels == 3] = 0  # class 3 does not occur
    iou = [((labels == c) & (predicted == c)).sum() / ((labels == c) | (predicted == c)).sum() for c in range(3)]
    loss = lovasz_softmax(F.one_hot(predicted, 4).double(), labels)
    torch.testing.assert_close(loss, 1 - torch.stack(iou).double().mean())


def test_lovasz_is_the_extension_of_the_jaccard_loss():
    """The sum over the sorted errors m_1 >= m_2 ... of m_i (J(first i) - J(first i - 1)), with J counted by sets."""
    chance, labels = torch.rand(5, 2, dtype=torch.float64).softmax(1), torch.tensor([0, 1, 1, 0, 1])
    expected = []
    for c in range(2):
        truth = set(np.flatnonzero(labels == c))

        def jaccard(wrong, truth=truth):
            predicted = truth ^ wrong
            return 1 - len(truth & predicted) / len(truth | predicted)

        errors = [(1 - p if i in truth else p) for i, p in enumerate(chance[:, c].tolist())]
        order = sorted(range(5), key=lambda i: -errors[i])
        sets = [set(order[:n]) for n in range(6)]
        steps = [jaccard(b) - jaccard(a) for a, b in itertools.pairwise(sets)]
        expected.append(sum(errors[i] * step for i, step in zip(order, steps, strict=True)))
    assert lovasz_softmax(chance, labels).item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_dice_by_hand():
    common, probability, count = torch.tensor([[2.0, 0.0, 0.0], [3.0, 1.0, 0.5], [3.0, 1.0, 0.0]])
    assert dice_loss(common, probability, count).item() == pytest.approx((1 - 4 / 6 + 1) / 2, abs=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"cross_entropy": 0.0}, "expected one above 0"),
        ({"class_weights": (1.0, -1.0)}, "loss.class_weights"),
        ({"class_weights": "even"}, "loss.class_weights must be .*balanced"),
        ({"smoothing": 1.0}, "loss.smoothing"),
        ({"dice": -1.0}, "loss.dice"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)


def test_weights_of_another_number_of_classes():
    with pytest.raises(ValueError, match="loss.class_weights has 3 values for 4 classes"):
        SegmentationLoss(4, LossConfig(), weights=WEIGHTS)


def test_full_logits_are_never_stored():
    """Neither those of all points nor those of a part are kept for the backward pass."""
    points = PointSet.from_images(torch.rand(3, 5, 64, 64, dtype=torch.float64))
    model = StandIn(5, 3, every=4).double()
    batch = SegmentBatch(points, torch.randint(0, 3, (3 * 64 * 64,)))
    kept = []

    def pack(tensor):
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = SegmentationLoss(3, LossConfig(dice=1.0), rows=1024)(model, batch)
    loss.backward()
    rows = {shape[0] for shape in kept if len(shape) == 2 and shape[1] == 3}
    assert rows <= {3 * 64 * 64 // 4, 5}  # of coarse logits, and of the weight
