"""Memory and time of the evaluation of detectors: peak resident memory of a process that counts AP of boxes and masks
of many images with 100 detections each. The network is left out: its detections are random.

python benchmarks/detect_memory.py --images 1000 --size 800 1200
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from pointmix import PointSet
from pointmix.data.detect import masks as rle
from pointmix.data.detect.sample import DetectBatch, Objects, Truth
from pointmix.models.detector import Detections
from pointmix.tasks.detect.metrics import DetectionMetric

CLASSES, OBJECTS, DETECTIONS = 80, 8, 100


class RandomDetections(nn.Module):
    """Random boxes, among them slightly moved ones of the objects, with round masks."""

    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.objects: Objects | None = None
        at = (torch.arange(28) + 0.5) / 14 - 1
        self.round = (1.5 - (at[:, None] ** 2 + at**2)).clamp(0, 1)  # (28, 28)

    def forward(self, points: PointSet, sizes: Tensor) -> list[Detections]:
        rows, columns = sizes[0].tolist()
        assert self.objects is not None
        boxes = random_boxes(self.generator, DETECTIONS, (rows, columns))
        boxes[:OBJECTS] = (self.objects.boxes + self.generator.normal(0, 3, (OBJECTS, 4))).clip(0)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        boxes = boxes.clip(0, [columns, rows, columns, rows])
        labels = self.generator.integers(0, CLASSES, DETECTIONS)
        labels[:OBJECTS] = self.objects.labels
        scores = np.sort(self.generator.random(DETECTIONS))[::-1].copy()
        found = [torch.from_numpy(boxes).float(), torch.from_numpy(labels), torch.from_numpy(scores).float()]
        return [Detections(*found, self.round.expand(DETECTIONS, 28, 28))]


def random_boxes(generator: np.random.Generator, number: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes of 8 to 500 pixels within an image."""
    sides = np.exp(generator.uniform(np.log(8), np.log(500), (number, 2))).clip(max=np.array(size[::-1]) - 1)
    first = generator.uniform(0, np.array(size[::-1]) - sides)
    return np.concatenate([first, first + sides], 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("ROWS", "COLUMNS"))
    args = parser.parse_args()
    size, generator = tuple(args.size), np.random.default_rng(0)
    model, metric = RandomDetections(generator), DetectionMetric(CLASSES)
    points, sizes = PointSet.from_batch(torch.zeros(1, 3, 32, 32)), torch.tensor([size])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for i in range(args.images):
        boxes = random_boxes(generator, OBJECTS, size)
        outlines = [[[x1, y1], [x2, y1], [x2, y2], [x1, y2]] for x1, y1, x2, y2 in boxes]
        masks = tuple(rle.from_polygons([np.array(outline)], size) for outline in outlines)
        labels = generator.integers(0, CLASSES, OBJECTS)
        model.objects = Objects(boxes, labels, np.zeros(OBJECTS, bool), rle.area(masks), masks)
        metric.update(model, DetectBatch(points, sizes, truths=[Truth(i, str(i), size, model.objects)]))
    updated, middle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    result = metric.compute()
    peak, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    print(f"{args.images} images of {size[0]} x {size[1]}, {DETECTIONS} detections each, {OBJECTS} objects")
    print(f"peak memory: {before / 2**20:.2f} GiB with torch alone, {updated / 2**20:.2f} GiB with all detections, "
          f"{peak / 2**20:.2f} GiB with AP")  # fmt: skip
    print(f"time: {middle - start:.0f} s to paste and keep masks, {end - middle:.0f} s for AP")
    print(f"box AP {result['box_ap']:.3f}, mask AP {result['mask_ap']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
