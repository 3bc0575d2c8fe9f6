"""Scikit-learn's handwritten digits: 1797 grayscale 8x8 images that are part of its package; no download."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source

MEAN, STD = (0.305,), (0.376,)  # of all pixels, with ink in [0, 1]
DEFAULTS = {
    "img_size": 8,
    "in_chans": 1,
    "mean": MEAN,
    "std": STD,
    "val_fraction": 0.1,
    "crop_pct": 1.0,
    "pad_crop": 1,
    "hflip": 0.0,
    "color_jitter": 0.0,
}


def _read(images: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(images[index])


def _name(split: str, index: int) -> str:
    return f"digits/{split}/{index}"


def open_digits(split: str) -> ImageSource:
    """The digits of one split: 'train' (1198 images) or 'test' (599), the same ones in every run.

    Raises:
        ValueError: for another split.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in ("train", "test"):
        raise ValueError(f"the digits have the splits 'train' and 'test', not {split!r}")
    digits = load_digits()
    every = np.arange(len(digits.target))
    train, test = train_test_split(every, test_size=599, stratify=digits.target, random_state=0)
    part = np.sort(train if split == "train" else test)
    images = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)  # (N, 8, 8), ink was 0 to 16
    targets = digits.target[part].astype(np.int64)
    return ImageSource([str(d) for d in range(10)], targets, partial(_read, images), partial(_name, split))


def _check(config: DataConfig) -> None:
    if config.root:
        raise ValueError(
            f"data.root {config.root}: data.source is digits, which are part of scikit-learn; name a --config such as "
            "configs/image/coc_cifar10.yaml, or --data.source folder"
        )


@register_source("digits", check=_check, uses=(), defaults=DEFAULTS)
def open_digits_split(config: DataConfig, split: str | None) -> ImageSource:
    """A split of the digits, see `open_digits`."""
    return open_digits(split or "test")
