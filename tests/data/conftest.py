"""A small image folder to build data from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_folder(root: Path, counts: dict[str, dict[str, int]], size: tuple[int, int] = (16, 16)) -> Path:
    """root/SPLIT/CLASS/N.jpg, noise images of (height, width) `size`."""
    rng = np.random.default_rng(0)
    for split, classes in counts.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
                image.save(root / split / name / f"{i:02}.jpg")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 + 10 training and 4 + 3 validation images."""
    return write_folder(tmp_path, {"train": {"cat": 20, "dog": 10}, "val": {"cat": 4, "dog": 3}})
