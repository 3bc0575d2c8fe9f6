"""Scikit-learn's handwritten digits scattered over a canvas, with a label for every pixel; nothing to download.

A scene has a background with a color gradient, a coarse texture and noise, and digits of random size, color and place,
which may hide a part of each other. Scenes are generated when they are read. Training scenes show the training digits
of `pointmix.data.images.sources.digits`, test scenes the test digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from pointmix.data.images.sources.digits import open_digits
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import LabeledImage
from pointmix.data.segment.settings import check_generated
from pointmix.data.segment.source import Color, register_segment_source

COUNTS = {"train": 5000, "test": 300}
SIDE = 64  # of the canvas, in pixels
DIGIT_SIDES = range(24, 35, 2)  # of the enlarged digits
DIGITS = (3, 6)  # at least, and fewer than
APART = 0.9  # smallest distance of two centers, in sides of the larger digit
CONTRAST = 0.35  # smallest difference of a digit's brightness from the background's mean
INK = 0.3  # a pixel with more ink has the digit's label
CLASSES = ("background", *map(str, range(10)))
PALETTE: tuple[Color, ...] = (
    (40, 40, 40),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
)
DEFAULTS = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "crop_size": (SIDE, SIDE),
    "scale_range": (1.0, 1.0),
    "cat_max_ratio": 1.0,
    "hflip": 0.0,
    "photometric": False,
}


@lru_cache
def _enlarge(side: int, cells: int) -> Float[np.ndarray, "S C"]:
    """Bilinear interpolation from `cells` values to `side`, half a cell of the first and last value beyond the ends."""
    x = ((np.arange(side) + 0.5) * (cells / side) - 0.5).clip(0, cells - 1)
    return np.maximum(0, 1 - abs(x[:, None] - np.arange(cells))).astype(np.float32)


@dataclass(frozen=True)
class Scenes:
    """Scenes of a split, see `pointmix.data.segment.source.SegmentSource`.

    Args:
        split: "train" or "test".
        digits: (D, 8, 8) ink in [0, 1].
        targets: (D,) what each digit shows.
    """

    split: str
    digits: Float[np.ndarray, "D 8 8"]
    targets: Int[np.ndarray, " D"]
    classes: tuple[str, ...] = CLASSES
    palette: tuple[Color, ...] = PALETTE
    categories: None = None

    def __len__(self) -> int:
        return COUNTS[self.split]

    def name(self, index: int) -> str:
        return f"scenes/{self.split}/{index}"

    def read(self, index: int) -> LabeledImage:
        """A scene in RGB; the same index always gives the same one."""
        rng = np.random.default_rng([*self.split.encode(), index])
        canvas = _background(rng)  # (SIDE, SIDE, 3) in [0, 1]
        label, instance = np.zeros((2, SIDE, SIDE), dtype=np.int64)
        brightness, centers = float(canvas.mean()), np.empty((0, 2))
        for _ in range(rng.integers(*DIGITS)):
            side = int(rng.choice(DIGIT_SIDES))
            places = rng.integers(0, SIDE - side + 1, (20, 2))  # the first one that is far enough from other digits
            apart = np.linalg.norm(places[:, None] + side / 2 - centers, axis=2).min(1, initial=np.inf) >= APART * side
            which, color = rng.integers(len(self.targets)), _color(rng, brightness)
            if not apart.any():
                continue
            top, left = places[apart.argmax()].tolist()
            centers = np.concatenate([centers, [[top + side / 2, left + side / 2]]])
            up, box = _enlarge(side, 8), np.s_[top : top + side, left : left + side]
            ink = ((up @ self.digits[which] @ up.T - INK) * 3 + 0.5).clip(0, 1)  # edges of about a pixel
            canvas[box] += ink[..., None] * (color - canvas[box])
            label[box][ink > 0.5] = self.targets[which] + 1
            instance[box][ink > 0.5] = len(centers)
        canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * 0.03
        return LabeledImage(
            Image.fromarray((canvas.clip(0, 1) * 255).round().astype(np.uint8)), label, instance=instance
        )


def _background(rng: np.random.Generator) -> Float[np.ndarray, "S S 3"]:
    """A gradient between two colors of similar brightness, with a coarse texture."""
    base = rng.uniform(0.15, 0.85) + rng.uniform(-0.12, 0.12, (2, 3))  # colors of two opposite sides
    slope = np.linspace(-1, 1, SIDE)
    angle = rng.uniform(0, 2 * np.pi)
    mix = 0.5 + 0.35 * (np.cos(angle) * slope + np.sin(angle) * slope[:, None])  # (SIDE, SIDE)
    up = _enlarge(SIDE, 8)
    texture = np.moveaxis(up @ rng.uniform(-0.08, 0.08, (3, 8, 8)) @ up.T, 0, 2)  # (SIDE, SIDE, 3)
    return (base[0] + mix[..., None] * (base[1] - base[0]) + texture).astype(np.float32)


def _color(rng: np.random.Generator, background: float) -> Float[np.ndarray, "3"]:
    """A random color that is brighter or darker than the background by at least CONTRAST."""
    brighter = background < 0.5 if abs(background - 0.5) > 0.5 - CONTRAST else rng.random() < 0.5
    low, high = (background + CONTRAST, 1.0) if brighter else (0.0, background - CONTRAST)
    return (rng.uniform(low, high) + rng.uniform(-0.12, 0.12, 3)).clip(0, 1).astype(np.float32)


@register_segment_source("scenes", kind="image", check=check_generated, defaults=DEFAULTS)
def open_scenes(config: SegmentDataConfig, split: str) -> Scenes | None:
    """The scenes of a split; there are none for "val"."""
    if split == "val":
        return None
    digits = open_digits(split)
    ink = np.stack([np.asarray(digits.read(i)) for i in range(len(digits.targets))]).astype(np.float32) / 255
    return Scenes(split, ink, digits.targets)
