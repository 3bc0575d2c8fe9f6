"""Metrics of labels for every pixel or point: IoU and accuracies from one confusion matrix, and part IoU of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from pointmix.data.segment.sample import IGNORE, SegmentBatch
from pointmix.pointset import PointSet
from pointmix.tasks.protocols import Metrics, Processes, Score

Category = Int[Tensor, "B"] | None
# (network, points, category) -> scores (N, K), or labels int64 (N,); see `pointmix.tasks.segment.inference`
InferFn = Callable[[nn.Module, PointSet, Category], Tensor]


class SegmentationMetric:
    """IoU and accuracies over all points of a data set that have a label, from one confusion matrix of exact counts.

    Metrics:
        miou: mean over the classes that occur in the truth or the predictions of TP / (TP + FP + FN).
        macc: mean over the classes that occur in the truth of TP / (TP + FN).
        aacc: share of the points that are classified correctly.
        iou, acc: of each class; None where it is left out.
        absent: number of classes that occur neither in the truth nor in the predictions.
        unlabeled: number of samples without a labeled point, which do not count.
        confusion: (K, K) points of each class (row) predicted as each class (column).

    Args:
        num_classes: K.
        infer: what gives scores or labels.
    """

    scores: Mapping[str, Score] = {
        "miou": Score("mIoU", percent=True),
        "macc": Score("mAcc", percent=True),
        "aacc": Score("aAcc", percent=True),
    }

    def __init__(self, num_classes: int, *, infer: InferFn) -> None:
        self.num_classes, self.infer = num_classes, infer
        self.reset()

    def reset(self) -> None:
        # the confusion matrix by rows, then the samples without a labeled point
        self.counts = torch.zeros(self.num_classes**2 + 1, dtype=torch.int64)

    def update(self, model: nn.Module, batch: SegmentBatch) -> None:
        found = self.infer(model, batch.points, batch.category)
        self.add(found.argmax(1) if found.ndim == 2 else found, batch)

    def add(self, labels: Int64[Tensor, " N"], batch: SegmentBatch) -> None:
        """Add the predicted labels of a batch."""
        counted = batch.labels != IGNORE  # (N,)
        size = self.num_classes**2
        pair = torch.where(counted, batch.labels * self.num_classes + labels, size)  # (N,)
        confusion = torch.bincount(pair, minlength=size + 1)[:size]
        ends = counted.long().cumsum(0)[batch.points.ptr[1:].long() - 1]  # (B,) labeled points so far
        unlabeled = (ends.diff(prepend=ends.new_zeros(1)) == 0).sum()
        self.counts = self.counts.to(confusion.device) + torch.cat([confusion, unlabeled[None]])

    def combine(self, processes: Processes) -> None:
        self.counts = processes.sum(self.counts)

    def compute(self) -> Metrics:
        counts = self.counts.cpu()
        return from_confusion(counts[:-1].view(self.num_classes, -1)) | {"unlabeled": int(counts[-1])}


def from_confusion(confusion: Int64[Tensor, "K K"]) -> Metrics:
    """The metrics of a confusion matrix, see `SegmentationMetric`.

    Raises:
        ValueError: it has no points.
    """
    right, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)  # (K,)
    if not (total := int(truth.sum())):
        raise ValueError("nothing to evaluate: no point has a label, expected at least one")
    union = truth + predicted - right
    iou, acc = right.double() / union.clamp(min=1), right.double() / truth.clamp(min=1)  # (K,)
    return {
        "miou": iou[union > 0].mean().item(),
        "macc": acc[truth > 0].mean().item(),
        "aacc": int(right.sum()) / total,
        "iou": _where(iou, union > 0),
        "acc": _where(acc, truth > 0),
        "absent": int((union == 0).sum()),
        "confusion": confusion.tolist(),
    }


def _where(values: Float[Tensor, " K"], there: Tensor) -> list[float | None]:
    return [value if is_there else None for value, is_there in zip(values.tolist(), there.tolist(), strict=True)]


class PartMetric(SegmentationMetric):
    """Part IoU of objects (ShapeNetPart), by both conventions in use, beside the metrics over all points.

    Metrics:
        instance_miou, class_miou: the IoU of an object is the mean over all parts of its category; a part that is
            neither in the truth nor predicted has 1; points take the most likely part of the category (PointNet++).
        instance_miou_present, class_miou_present: the mean over the parts in the truth alone; points take the most
            likely of all parts (PointMLP's released code).
        per_category: name -> [objects, mean IoU, mean IoU over present parts], of the categories that occur.

    "instance" is the mean over all objects, "class" the mean over the categories of the mean over their objects.

    Args:
        num_classes: K, parts of all categories.
        categories: name -> labels of its parts, in the order of the categories' numbers.
        infer: what gives scores.
    """

    part_scores: Mapping[str, Score] = {
        "instance_miou": Score("instance mIoU", percent=True),
        "class_miou": Score("class mIoU", percent=True),
        "instance_miou_present": Score("instance mIoU, parts present", percent=True),
        "class_miou_present": Score("class mIoU, parts present", percent=True),
    }

    def __init__(self, num_classes: int, *, categories: Mapping[str, Sequence[int]], infer: InferFn) -> None:
        self.categories = {name: list(parts) for name, parts in categories.items()}
        super().__init__(num_classes, infer=infer)

    def reset(self) -> None:
        super().reset()
        self.sums = torch.zeros(len(self.categories), 3, dtype=torch.float64)  # objects, IoU, IoU of present parts

    def update(self, model: nn.Module, batch: SegmentBatch) -> None:
        scores = self.infer(model, batch.points, batch.category)  # (N, K)
        if batch.category is None:
            raise ValueError("objects without categories have no part IoU, expected a category for each")
        self.add(scores.argmax(1), batch)
        parts, ptr = list(self.categories.values()), batch.points.ptr.tolist()
        for i, category in enumerate(batch.category.tolist()):
            rows = slice(ptr[i], ptr[i + 1])
            counted = batch.labels[rows] != IGNORE
            if not counted.any():
                continue
            own, one = parts[category], scores[rows][counted]
            self.sums[category] += object_ious(one.cpu(), batch.labels[rows][counted].cpu(), own)

    def combine(self, processes: Processes) -> None:
        super().combine(processes)
        self.sums = processes.sum(self.sums).cpu().double()

    def compute(self) -> Metrics:
        sums = self.sums[self.sums[:, 0] > 0]
        if not len(sums):
            raise ValueError("nothing to evaluate: no object has a label, expected at least one")
        instance, by_class = (sums[:, 1:].sum(0) / sums[:, 0].sum()).tolist(), sums[:, 1:] / sums[:, :1]
        class_mean = by_class.mean(0).tolist()
        names = [name for name, objects in zip(self.categories, self.sums[:, 0].tolist(), strict=True) if objects]
        rows = zip(names, sums[:, 0].tolist(), by_class.tolist(), strict=True)
        return super().compute() | {
            "instance_miou": instance[0],
            "class_miou": class_mean[0],
            "instance_miou_present": instance[1],
            "class_miou_present": class_mean[1],
            "per_category": {name: [int(objects), *ious] for name, objects, ious in rows},
        }


def object_ious(scores: Float[Tensor, "N K"], labels: Int64[Tensor, " N"], parts: Sequence[int]) -> Float[Tensor, " 3"]:
    """1 and the IoU of one object by both conventions of `PartMetric`, float64.

    Args:
        scores: of all parts.
        labels: of the points, none to ignore.
        parts: labels of the category's parts.
    """
    within = torch.tensor(parts)[scores[:, parts].argmax(1)]  # (N,)
    over_all = scores.argmax(1)
    own = [_iou(within == part, labels == part) for part in parts]
    present = [_iou(over_all == part, labels == part) for part in labels.unique().tolist()]
    return torch.tensor([1.0, sum(own) / len(own), sum(present) / len(present)], dtype=torch.float64)


def _iou(predicted: Tensor, truth: Tensor) -> float:
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0
