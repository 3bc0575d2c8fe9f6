"""The loss of segmentation: cross-entropy, Dice and Lovasz-softmax over the labeled points.

The network gives its logits before the last lift. Cross-entropy and Dice lift a part of the points at a time and
recompute the part in the backward pass, so that logits at full resolution are never stored. On a CPU, cross-entropy by
itself and its gradient are computed point by point.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.layouts.lift import GridLift, IndexLift, Lift
from pointmix.ops.lifted_loss import has_lifted_loss, lifted_loss
from pointmix.tasks.segment.config import LossConfig
from pointmix.utils.messages import counted

SMOOTH = 1e-5  # in Dice
ROWS = 1 << 17  # points whose logits are held at a time


class SegmentationLoss:
    """The loss of a batch, a float32 scalar (float64 in float64). A batch without a labeled point has the loss 0, with
    gradients of 0.

    Args:
        num_classes: K.
        config: which losses.
        weights: (K,) of the classes in the cross-entropy; None: 1.
        rows: about so many points are lifted at a time.
    """

    def __init__(
        self, num_classes: int, config: LossConfig, *, weights: Sequence[float] | None = None, rows: int = ROWS
    ) -> None:
        if weights is not None and len(weights) != num_classes:
            number = counted(len(weights), "value")
            raise ValueError(f"loss.class_weights has {number} for {counted(num_classes, 'class')}")
        self.num_classes, self.config, self.rows = num_classes, config, rows
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def __call__(self, model: nn.Module, batch: SegmentBatch) -> Float[Tensor, ""]:
        coarse, lift = model(batch.points, batch.category, lift=False)
        feat = coarse.feat if coarse.feat.dtype == torch.float64 else coarse.feat.float()  # (Q, K)
        config, loss = self.config, feat.sum() * 0
        if config.cross_entropy or config.dice:
            cross_entropy, common, probability, count = self._sums(feat, lift, batch.labels)
            loss = loss + config.cross_entropy * cross_entropy
            if config.dice:
                loss = loss + config.dice * dice_loss(common, probability, count)
        if config.lovasz:
            labeled = batch.labels != IGNORE
            loss = loss + config.lovasz * lovasz_softmax(lift(feat)[labeled].softmax(1), batch.labels[labeled])
        return loss

    def _sums(
        self, feat: Float[Tensor, "Q K"], lift: Lift, labels: Int64[Tensor, " N"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mean cross-entropy of the labeled points; for each class, sums of its probability at its own and at all
        labeled points, and the number of its points."""
        weights = feat.new_ones(self.num_classes) if self.weights is None else self.weights.to(feat)
        count = torch.bincount(labels - IGNORE, minlength=self.num_classes + 1)[1:].to(feat)  # (K,)
        plain = not (self.config.dice or self.config.smoothing)
        if plain and isinstance(lift, GridLift | IndexLift) and has_lifted_loss(feat):
            cross_entropy, common, probability = _lifted(feat, lift, labels, weights), count * 0, count * 0
        else:
            parts = [
                checkpoint(self._part, feat, own, labels[part], weights, use_reentrant=False, preserve_rng_state=False)
                for part, own in lift.split(self.rows)
            ]
            cross_entropy, common, probability = (torch.stack(sums).sum(0) for sums in zip(*parts, strict=True))
        divisor = (count * weights).sum()
        return cross_entropy / torch.where(divisor > 0, divisor, 1), common, probability, count

    def _part(
        self, feat: Float[Tensor, "Q K"], lift: Lift, labels: Int64[Tensor, " n"], weights: Float[Tensor, " K"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of some points: the sum of cross-entropies; sums of probabilities of their own class, and of all classes."""
        logits = lift(feat)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss = F.cross_entropy(
            logits,
            labels,
            weights,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.config.smoothing,
        )
        if not self.config.dice:
            return loss, feat.new_zeros(()), feat.new_zeros(())
        chance = logits.softmax(1) * (labels != IGNORE)[:, None]
        own = F.one_hot(labels.clamp(min=0), self.num_classes)
        return loss, (chance * own).sum(0), chance.sum(0)


def _lifted(
    feat: Float[Tensor, "Q K"], lift: GridLift | IndexLift, labels: Int64[Tensor, " N"], weights: Float[Tensor, " K"]
) -> Float[Tensor, ""]:
    """The sum of cross-entropies, see `pointmix.ops.lifted_loss`."""
    own, sets = (lift.of_one_set(feat), lift.num_sets) if isinstance(lift, GridLift) else (lift, 1)
    feat, labels = feat.view(sets, -1, feat.shape[1]), labels.view(sets, -1)
    return lifted_loss(feat, own.index, own.weight, labels, weights, IGNORE)


def dice_loss(
    common: Float[Tensor, " K"], probability: Float[Tensor, " K"], count: Float[Tensor, " K"]
) -> Float[Tensor, ""]:
    """1 - 2 |A B| / (|A| + |B|), the mean over the classes that occur; 0 if none does.

    Args:
        common, probability: sums of the probability of each class at its own points, and at all points.
        count: points of each class.
    """
    loss = 1 - (2 * common + SMOOTH) / (probability + count + SMOOTH)  # (K,)
    occurs = count > 0
    return (loss * occurs).sum() / occurs.sum().clamp(min=1)


def lovasz_softmax(probabilities: Float[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> Float[Tensor, ""]:
    """The Lovasz-softmax loss (Berman et al., "The Lovász-Softmax loss", CVPR 2018, equations 9 and 11): the mean over
    the classes that occur of the Lovász extension of 1 - IoU; 0 without points.

    Args:
        probabilities: of the labeled points of a batch.
        labels: classes.
    """
    losses = []
    for label in labels.unique().tolist():
        own = labels == label  # (N,)
        errors, order = (own.to(probabilities.dtype) - probabilities[:, label]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(own[order]).to(errors.dtype))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _jaccard_steps(own: Bool[Tensor, " N"]) -> Float[Tensor, " N"]:
    """By how much 1 - IoU grows with each point that is wrong, in this order (their algorithm 1).

    Args:
        own: whether each point is of the class.
    """
    total, right, wrong = own.sum(), own.long().cumsum(0), (~own).long().cumsum(0)  # whole numbers: exact
    jaccard = 1 - (total - right).double() / (total + wrong).double()
    return jaccard.diff(prepend=jaccard.new_zeros(1))
