"""Accuracies of a classification: top-1 and top-5, or by class with the confusion matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pointmix.tasks.metrics import SumMetric
from pointmix.tasks.protocols import Metrics, Score

Labeled = tuple[Any, Int64[Tensor, " B"]]  # inputs and targets


class TopAccuracy(SumMetric[Labeled]):
    """Top-1 and top-5 accuracy, fractions of 1, and mean cross-entropy.

    Args:
        prepare: makes the network's input of the inputs, see `ClassificationLoss`.
    """

    scores = {"top1": Score("top-1", percent=True), "top5": Score("top-5", percent=True)}

    def __init__(self, *, prepare: Callable[[Any], Any] = lambda inputs: inputs) -> None:
        super().__init__(4)
        self.prepare = prepare

    def batch_sums(self, model: nn.Module, batch: Labeled) -> Float[Tensor, " 4"]:
        """Correct top-1 predictions, correct top-5 predictions, loss, images; float32."""
        inputs, targets = batch
        logits = model(self.prepare(inputs)).float()  # (B, K)
        best = logits.topk(min(5, logits.shape[1])).indices  # (B, 5), fewer columns with fewer classes
        hits = best == targets[:, None]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return torch.stack([hits[:, 0].sum(), hits.sum(), loss, loss.new_tensor(len(targets))])

    def from_sums(self, sums: Float[Tensor, " 4"]) -> Metrics:
        top1, top5, loss, images = sums.tolist()
        if images == 0:
            raise ValueError("nothing to evaluate: the loader gave no images, expected at least one")
        return {"top1": top1 / images, "top5": top5 / images, "loss": loss / images}


class Confusion(SumMetric[Labeled]):
    """Overall accuracy, mean class accuracy, and the confusion matrix.

    Metrics:
        oa: share of the samples that are classified correctly.
        macc: mean over the classes that occur of the share of their samples (balanced accuracy).
        loss: mean cross-entropy.
        per_class: share of the samples of each class; None for a class without samples.
        confusion: (K, K) samples of each class (row) predicted as each class (column).

    Args:
        num_classes: K.
        unit: what the samples are called.
    """

    scores = {"oa": Score("OA", percent=True), "macc": Score("mAcc", percent=True)}

    def __init__(self, num_classes: int, *, unit: str = "samples") -> None:
        super().__init__(num_classes**2 + 1)
        self.num_classes, self.unit = num_classes, unit

    def batch_sums(self, model: nn.Module, batch: Labeled) -> Float[Tensor, " S"]:
        """The confusion matrix by rows, then the loss; float32."""
        inputs, targets = batch
        logits = model(inputs).float()  # (B, K)
        pair = targets * self.num_classes + logits.argmax(1)  # (B,)
        counts = torch.bincount(pair, minlength=self.num_classes**2)
        return torch.cat([counts.float(), F.cross_entropy(logits, targets, reduction="sum")[None]])

    def from_sums(self, sums: Float[Tensor, " S"]) -> Metrics:
        confusion = sums[:-1].view(self.num_classes, self.num_classes)
        counts = confusion.sum(1)  # (K,)
        total = counts.sum().item()
        if total == 0:
            raise ValueError(f"nothing to evaluate: the loader gave no {self.unit}, expected at least one")
        correct, occurs = confusion.diagonal(), counts > 0
        share = correct / counts.clamp(min=1)
        return {
            "oa": correct.sum().item() / total,
            "macc": share[occurs].mean().item(),
            "loss": sums[-1].item() / total,
            "per_class": [s if there else None for s, there in zip(share.tolist(), occurs.tolist(), strict=True)],
            "confusion": confusion.long().tolist(),
        }
