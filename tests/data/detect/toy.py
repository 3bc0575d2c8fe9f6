"""Images with objects made of a few numbers: source `toy_objects`.

Every image is black, with white rectangles that are its objects; their class is their number modulo 3.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pointmix.data.detect import masks as rle
from pointmix.data.detect.sample import ObjectImage, Objects
from pointmix.data.detect.source import DETECT_SOURCES, register_detect_source
from pointmix.io.errors import UnreadableSample

COUNTS = {"train": 10, "test": 4}
CLASSES = ("a", "b", "c")
SIZES = ((20, 30), (30, 20))  # of even and odd images


def objects_of(boxes, *, size, labels=None, crowd=None, masks=True):
    """Rectangles, whole pixels x1, y1, x2, y2."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    maps = np.zeros((len(boxes), *size), np.uint8)
    for one, (x1, y1, x2, y2) in zip(maps, boxes.astype(int), strict=True):
        one[y1:y2, x1:x2] = 1
    labels = np.arange(len(boxes)) % 3 if labels is None else np.array(labels)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    area = maps.sum((1, 2)).astype(np.float64)
    return Objects(boxes, labels.astype(np.int64), crowd, area, rle.encode(maps) if masks else None)


def image_of(objects, size, image_id=0):
    pixels = np.zeros(size, np.uint8)
    for x1, y1, x2, y2 in objects.boxes.astype(int):
        pixels[y1:y2, x1:x2] = 255
    return ObjectImage(Image.fromarray(pixels).convert("RGB"), objects, image_id)


class Toy:
    classes = CLASSES
    category_ids = (7, 3, 20)
    has_masks = True

    def __init__(self, split, count=None):
        self.split, self.count = split, count or COUNTS[split]
        self.damaged, self.empty, self.reads = (), (), 0

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{self.split}/{index}.png"

    def size(self, index):
        if index in self.damaged:
            raise UnreadableSample("torn")
        return SIZES[index % 2]

    def has_objects(self, index):
        return index not in self.empty

    def read(self, index):
        self.reads += 1
        size = self.size(index)
        generator = np.random.default_rng([len(self.split), index])
        corner = generator.integers(0, 10, (0 if index in self.empty else 3, 2))
        objects = objects_of(np.concatenate([corner, corner + generator.integers(4, 9, corner.shape)], 1), size=size)
        return image_of(objects, size, index)


DEFAULTS = {"short_side": 20, "max_side": 40}

if "toy_objects" not in DETECT_SOURCES:
    register_detect_source("toy_objects", defaults=DEFAULTS)(
        lambda config, split: None if split == "val" else Toy(split)
    )
    register_detect_source("toy_own_val", defaults=DEFAULTS)(
        lambda config, split: Toy("test" if split == "val" else split, 2 if split == "val" else None)
    )
