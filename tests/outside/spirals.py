"""A source of clouds from outside the package: left-handed and right-handed spirals."""

from __future__ import annotations

import numpy as np

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.source import register_source

CLOUDS = {"train": 60, "test": 20}


class Spirals:
    """Spirals of 48 to 80 points and two turns about the z axis."""

    classes = ["left-handed", "right-handed"]

    def __init__(self, split: str):
        self.split = split
        self.targets = np.arange(CLOUDS[split]) % 2

    def read(self, index: int) -> NamedCloud:
        generator = np.random.default_rng([self.split == "train", index])
        along = generator.uniform(-1, 1, generator.integers(48, 81))
        angle = 2 * np.pi * (along + generator.random())
        sign = 1 if self.targets[index] else -1
        xyz = np.stack([np.cos(angle), sign * np.sin(angle), along], axis=1)
        return NamedCloud(xyz.astype(np.float32), {})

    def name(self, index: int) -> str:
        return f"{self.split} spiral {index}"


@register_source("spirals")
def open_spirals(config: PointDataConfig, split: str) -> Spirals:
    return Spirals(split)
