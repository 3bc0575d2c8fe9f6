"""Classification of point clouds: overall accuracy, mean accuracy of the classes, and the confusion matrix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pointmix.pointset import PointSet
from pointmix.tasks.classify import Classify


class ClassifyPoints(Classify):
    """Classification of clouds into `num_classes` classes.

    Args:
        num_classes: number of classes, at least 1.
        smoothing: probability taken from the true class and shared evenly by the others (PointMLP, released code).
            That is label smoothing as timm and torch know it, which gives a share to the true class too, by
            smoothing * K / (K - 1) for K classes.

    Raises:
        ValueError: if the true class would not keep more than any other.
    """

    select_by = "oa"
    shares = {"oa": "OA", "macc": "mAcc"}

    def __init__(self, num_classes: int, *, smoothing: float = 0.0) -> None:
        others = num_classes - 1
        if smoothing and not 0 < smoothing * num_classes < others:
            limit = others / num_classes
            raise ValueError(
                f"mix.smoothing must be at least 0 and below {limit:.3g} for {num_classes} classes, got {smoothing}"
            )
        super().__init__(num_classes, smoothing=smoothing * num_classes / others if smoothing else 0.0)

    def measure(self, model: nn.Module, points: PointSet, targets: Int64[Tensor, " B"]) -> Float[Tensor, " K*K+1"]:
        """Sums over a batch, float32: clouds of each class (row) taken for each class (column), then the loss."""
        logits = model(points).float()  # (B, K)
        pair = targets * self.num_classes + logits.argmax(1)  # (B,)
        counts = torch.bincount(pair, minlength=self.num_classes**2)
        return torch.cat([counts.float(), F.cross_entropy(logits, targets, reduction="sum")[None]])

    def zeros(self, device: torch.device) -> Float[Tensor, " K*K+1"]:
        """The sums over no batch; float64 but on mps, as in `Classify`."""
        return super().zeros(device).new_zeros(self.num_classes**2 + 1)

    def summarize(self, sums: Float[Tensor, " K*K+1"]) -> dict[str, Any]:
        """The sums of `measure` as metrics.

        Returns:
            oa: share of the clouds that are taken for what they are; macc: mean of that share over the classes that
            occur (balanced accuracy); loss: mean cross-entropy; per_class: the share in each class, None for one that
            does not occur; confusion: clouds of each class (row) taken for each class (column).

        Raises:
            ValueError: if no cloud was measured.
        """
        confusion = sums[:-1].view(self.num_classes, self.num_classes).double().cpu()
        clouds = confusion.sum(1)  # (K,) of each class
        total = clouds.sum().item()
        if total == 0:
            raise ValueError("nothing to evaluate: the loader gave no clouds, expected at least one")
        right, occurs = confusion.diagonal(), clouds > 0
        share = right / clouds.clamp(min=1)
        return {
            "oa": right.sum().item() / total,
            "macc": share[occurs].mean().item(),
            "loss": sums[-1].item() / total,
            "per_class": [s if there else None for s, there in zip(share.tolist(), occurs.tolist(), strict=True)],
            "confusion": confusion.long().tolist(),
        }
