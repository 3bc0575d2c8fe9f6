"""Scikit-learn's handwritten digits: 1797 gray 8x8 images that come inside its package, so nothing is downloaded."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from pointmix.data.images.source import Source

MEAN, STD = (0.305,), (0.376,)  # of all pixels, with ink in [0, 1]


def _read(images: np.ndarray, index: int) -> Image.Image:
    return Image.fromarray(images[index])


def _name(split: str, index: int) -> str:
    return f"digits/{split}/{index}"


def open_digits(split: str) -> Source:
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
    return Source([str(d) for d in range(10)], targets, partial(_read, images), partial(_name, split))
