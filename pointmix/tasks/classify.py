"""Image classification: cross-entropy with mixing and smoothing in training, top-1, top-5 and loss in evaluation.

A task is four functions that the engine calls: `loss` of a training batch, `measure` of an evaluation batch as sums
that add over batches and processes, `zeros` to add them to, and `summarize`, which turns the sums into metrics.
`select_by` names the metric by which the best epoch is chosen (larger is better), `shares` those that are fractions of
1, with what to call them. A metric that is no number (a list, say) is told of the test only, not of every epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from pointmix.pointset import PointSet


class Classify:
    """Classification of images into `num_classes` classes.

    Args:
        num_classes: number of classes, at least 1.
        mixup, cutmix: alphas of mixup and CutMix, 0 is off. Mixing draws from numpy's global generator.
        switch_prob: chance of CutMix rather than mixup when both are on.
        smoothing: label smoothing in [0, 1).
        prepare: makes the model's input of a batch, mixed or not: of images with masks, say, their visible points.

    Raises:
        ValueError: if `smoothing` is outside [0, 1).
    """

    select_by = "top1"
    shares = {"top1": "top-1", "top5": "top-5"}

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        switch_prob: float = 0.5,
        smoothing: float = 0.0,
        prepare: Callable[[Tensor], Tensor | PointSet] = lambda images: images,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"mix.smoothing must be at least 0 and below 1, got {smoothing}")
        self.num_classes, self.prepare = num_classes, prepare
        self.mix = None
        if mixup > 0 or cutmix > 0:
            self.mix = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                switch_prob=switch_prob,
                label_smoothing=smoothing,
                num_classes=num_classes,
            )
            self.criterion: nn.Module = SoftTargetCrossEntropy()
        else:
            self.criterion = LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()

    def loss(
        self, model: nn.Module, images: Float[Tensor, "B C H W"], targets: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """Mean training loss of a batch, float32.

        Raises:
            ValueError: if images are to be mixed and B is odd, for they are mixed in pairs.
        """
        if self.mix is not None:
            if len(images) % 2:
                raise ValueError(f"mixup and cutmix need an even number of images in a batch, got {len(images)}")
            images, targets = self.mix(images, targets)  # targets become (B, classes)
        return self.criterion(model(self.prepare(images)).float(), targets)

    def measure(
        self, model: nn.Module, images: Float[Tensor, "B C H W"], targets: Int64[Tensor, " B"]
    ) -> Float[Tensor, " 4"]:
        """Sums over a batch, float32: right at the first guess, right within five guesses, loss, images."""
        logits = model(self.prepare(images)).float()  # (B, classes)
        guesses = logits.topk(min(5, logits.shape[1])).indices  # (B, 5), fewer columns with fewer classes
        hits = guesses == targets[:, None]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return torch.stack([hits[:, 0].sum(), hits.sum(), loss, loss.new_tensor(len(targets))])

    def zeros(self, device: torch.device) -> Float[Tensor, " 4"]:
        """The sums over no batch; float64, in which counts stay exact, save on mps, which has float32 only."""
        return torch.zeros(4, device=device, dtype=torch.float32 if device.type == "mps" else torch.float64)

    def summarize(self, sums: Float[Tensor, " 4"]) -> dict[str, float]:
        """The sums of `measure` as top1 and top5, fractions of 1, and the mean loss.

        Raises:
            ValueError: if no image was measured.
        """
        top1, top5, loss, images = sums.tolist()
        if images == 0:
            raise ValueError("nothing to evaluate: the loader gave no images, expected at least one")
        return {"top1": top1 / images, "top5": top5 / images, "loss": loss / images}
