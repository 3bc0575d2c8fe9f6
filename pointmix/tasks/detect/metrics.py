"""The metric of detectors: AP of boxes and of masks over all images of a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from pointmix.data.detect.sample import DetectBatch
from pointmix.tasks.detect.ap import Evaluated, average_precision
from pointmix.tasks.detect.found import in_pixels
from pointmix.tasks.protocols import Metrics, Processes, Score


class DetectionMetric:
    """COCO's AP of all images, each counted once, whichever process it was in. Masks are kept as run lengths.

    Metrics: those of `average_precision` for boxes, and for masks if network and data have them, and
        objects: objects of each class, without crowds.
        absent: number of classes without an object, which the means leave out.

    Args:
        num_classes: K.
    """

    scores: Mapping[str, Score] = {
        "box_ap": Score("box AP", percent=True),
        "box_ap50": Score("box AP50", percent=True),
        "mask_ap": Score("mask AP", percent=True),
        "mask_ap50": Score("mask AP50", percent=True),
    }

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        self.images: list[Evaluated] = []

    def update(self, model: nn.Module, batch: DetectBatch) -> None:
        assert batch.truths is not None, "the batch is of training"
        detections, lattices = model(batch.points, batch.sizes), batch.sizes.tolist()
        for truth, found, lattice in zip(batch.truths, detections, lattices, strict=True):
            pixels = in_pixels(found, lattice=tuple(lattice), size=truth.size, name=truth.name)
            self.images.append(Evaluated(truth, pixels))

    def combine(self, processes: Processes) -> None:
        self.images = processes.gather(self.images)

    def counted(self) -> list[Evaluated]:
        """The images, each once."""
        return list({image.truth.image_id: image for image in reversed(self.images)}.values())[::-1]

    def compute(self) -> Metrics:
        images = self.counted()
        if not images:
            raise ValueError("nothing to evaluate: there is no image that can be read, expected at least one")
        labels = [image.truth.objects.labels[~image.truth.objects.crowd] for image in images]
        objects = np.bincount(np.concatenate(labels), minlength=self.num_classes)
        if not objects.any():
            raise ValueError(f"nothing to evaluate: no object in any of {len(images)} images, expected at least one")
        metrics = average_precision(images, self.num_classes, "bbox")
        if all(image.truth.objects.masks is not None and image.found.masks is not None for image in images):
            metrics |= average_precision(images, self.num_classes, "segm")
        return metrics | {"objects": objects.tolist(), "absent": int((objects == 0).sum())}
