"""Labeled images and clouds of a few points that need no transforms: sources `toy_images` and `toy_clouds`.

Every image is 8 x 8 with three stripes, whose class its colors show. Every cloud has 12 points, whose class is in their
feature; its category is its number's parity.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.data.segment.sample import LabeledCloud, LabeledImage, SegmentBatch
from pointmix.data.segment.source import SEGMENT_SOURCES, register_segment_source
from pointmix.io.errors import UnreadableSample

COUNTS = {"train": 10, "test": 4}
CLASSES = ("left", "middle", "right")


class Toy:
    """Images."""

    categories = None
    palette = ((1, 2, 3), (4, 5, 6), (7, 8, 9))

    def __init__(self, config, split, count=None):
        self.classes, self.split = tuple(config.classes or CLASSES), split
        self.count = count or COUNTS[split]
        self.reads = 0
        self.damaged, self.labels = (), {}  # indices; index -> label in the first row

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{self.split}/{index}.png"

    def generator(self, index):
        return np.random.default_rng([len(self.split), index])

    def read(self, index):
        self.reads += 1
        if index in self.damaged:
            raise UnreadableSample("torn")
        label = np.repeat(np.sort(self.generator(index).integers(0, 3, 8))[None], 8, 0)  # (H, W)
        image = Image.fromarray((label[..., None] * [100, 40, 10] + [5, 50, 120]).astype(np.uint8))
        if index in self.labels:
            label[0, 1] = self.labels[index]
        return LabeledImage(image, label)


class ToyClouds(Toy):
    categories = {"even": (0, 1), "odd": (1, 2)}
    palette = None

    def name(self, index):
        return f"{self.split}/{index}.ply"

    def read(self, index):
        generator = self.generator(index)
        label = generator.integers(0, 2, 12) + index % 2
        return LabeledCloud(generator.random((12, 3)), {"value": label / 2.0}, label, index % 2)


def prepared(raw):
    """A batch of one set; training turns images by chance."""
    if isinstance(raw, LabeledCloud):
        feat = torch.tensor(raw.features["value"], dtype=torch.float32)[:, None]
        points = PointSet.from_points(torch.tensor(raw.pos, dtype=torch.float32), feat)
        return SegmentBatch(points, torch.tensor(raw.label), torch.tensor([raw.category]))
    return SegmentBatch(PointSet.from_image(raw.image), torch.tensor(raw.label.reshape(-1)))


def flipped_or_not(raw):
    item = prepared(raw)
    return item._replace(points=item.points.with_feat(item.points.feat * (0.9 + 0.2 * torch.rand(()))))


if "toy_images" not in SEGMENT_SOURCES:
    defaults = {"crop_size": (8, 8), "photometric": False}
    register_segment_source("toy_images", kind="image", defaults=defaults)(
        lambda config, split: None if split == "val" else Toy(config, split)
    )
    register_segment_source("toy_own_val", kind="image", defaults=defaults)(
        lambda config, split: Toy(config, "test" if split == "val" else split, 2 if split == "val" else None)
    )
    register_segment_source("toy_clouds", kind="cloud", defaults={"features": ("value",), "up": "y"})(
        lambda config, split: None if split == "val" else ToyClouds(config, split)
    )
