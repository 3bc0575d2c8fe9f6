"""Cross-entropy with weights of classes, mixing of images and label smoothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pointmix.tasks.class_weights import class_weights
from pointmix.tasks.classification.config import ClassLossConfig


class ClassificationLoss:
    """Mean cross-entropy of a batch of inputs and targets.

    Args:
        num_classes: K, at least 1.
        mixup, cutmix: alphas of mixup and CutMix, 0 is off. Mixing draws from numpy's global generator.
        switch_prob: probability of CutMix rather than mixup when both are on.
        smoothing: label smoothing in [0, 1).
        weights: (K,) of the classes; None: 1. The mean over the samples is a weighted one, except of mixed images.
        prepare: makes the network's input of the inputs, mixed or not: of images with masks, their visible points.

    Raises:
        ValueError: `smoothing` is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        switch_prob: float = 0.5,
        smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
        prepare: Callable[[Any], Any] = lambda inputs: inputs,
    ) -> None:
        from timm.data import Mixup  # timm takes seconds to import
        from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

        if not 0 <= smoothing < 1:
            raise ValueError(f"mix.smoothing must be at least 0 and below 1, got {smoothing}")
        self.prepare, self.mixup = prepare, None
        self.weights = None if weights is None else torch.tensor(weights)
        self.smoothing = smoothing
        self.criterion: nn.Module = LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
        if mixup > 0 or cutmix > 0:
            self.mixup = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                switch_prob=switch_prob,
                label_smoothing=smoothing,
                num_classes=num_classes,
            )
            self.criterion, self.smoothing = SoftTargetCrossEntropy(), 0.0  # mixing smooths

    def __call__(self, model: nn.Module, batch: tuple[Any, Int64[Tensor, " B"]]) -> Float[Tensor, ""]:
        """The loss in float32.

        Raises:
            ValueError: images are to be mixed and B is odd; they are mixed in pairs.
        """
        inputs, targets = batch
        if self.mixup is not None:
            if len(inputs) % 2:
                raise ValueError(f"mixup and cutmix need an even number of images in a batch, got {len(inputs)}")
            inputs, targets = self.mixup(inputs, targets)  # targets become (B, K)
        logits = model(self.prepare(inputs)).float()
        if self.weights is None:
            return self.criterion(logits, targets)
        return F.cross_entropy(logits, targets, self.weights.to(logits), label_smoothing=self.smoothing)


def loss_weights(config: ClassLossConfig, train: Any, classes: int) -> list[float] | None:
    """The weights of the classes, for the info of a run; see `pointmix.tasks.class_weights.class_weights`.

    Args:
        train: dataset of the training samples, see `pointmix.data.dataset.SourceDataset`.
        classes: K.
    """

    def counts() -> list[int]:
        return np.bincount(train.source.targets[train.indices], minlength=classes).tolist()

    return class_weights(config.class_weights, counts=counts, classes=classes)


def shared_among_others(smoothing: float, num_classes: int) -> float:
    """Label smoothing, as timm and torch define it, in which the true class keeps 1 - smoothing and the others share
    the rest evenly (PointMLP, released code): theirs gives a part of the rest to the true class.

    Raises:
        ValueError: the true class would not keep more than any other.
    """
    others = num_classes - 1
    if smoothing and not 0 < smoothing * num_classes < others:
        limit = others / num_classes
        raise ValueError(
            f"mix.smoothing must be at least 0 and below {limit:.3g} for {num_classes} classes, got {smoothing}"
        )
    return smoothing * num_classes / others if smoothing else 0.0
