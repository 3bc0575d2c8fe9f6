"""Scikit-learn's handwritten digits scattered over a canvas, see `pointmix.data.segment.sources.scenes`: each digit is
an object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.sample import ObjectImage, Objects
from pointmix.data.detect.source import register_detect_source
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sources.scenes import SIDE, Scenes, open_scenes

DEFAULTS = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "short_side": SIDE,
    "max_side": SIDE,
    "hflip": 0.0,
}


@dataclass(frozen=True)
class DigitScenes:
    """A `pointmix.data.detect.source.DetectSource` of scenes with the number of the digit of every pixel."""

    scenes: Scenes
    classes: tuple[str, ...] = tuple(map(str, range(10)))
    category_ids: tuple[int, ...] = tuple(range(1, 11))
    has_masks: bool = True

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def size(self, index: int) -> tuple[int, int]:
        return SIDE, SIDE

    def has_objects(self, index: int) -> bool:
        return True

    def read(self, index: int) -> ObjectImage:
        """A scene and the visible parts of its digits."""
        scene = self.scenes.read(index)
        assert scene.instance is not None
        numbers, masks = rle.from_numbers(scene.instance)
        first = [int(np.argmax(scene.instance == number)) for number in numbers]  # a pixel of each
        labels = scene.label.ravel()[first].astype(np.int64) - 1  # class 0 is the background there
        objects = Objects(rle.boxes(masks), labels, np.zeros(len(masks), dtype=bool), rle.area(masks), masks)
        return ObjectImage(scene.image, objects, index)


@register_detect_source("scenes", uses=(), defaults=DEFAULTS)
def open_digit_scenes(config: DetectDataConfig, split: str) -> DigitScenes | None:
    """The scenes of a split; there are none for "val"."""
    scenes = open_scenes(SegmentDataConfig(), split)
    return DigitScenes(scenes) if isinstance(scenes, Scenes) else None
