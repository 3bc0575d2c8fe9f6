"""Data sets of torchvision, torch/NAME."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source
from pointmix.io.formats.pillow import open_image


def _read_pair(dataset: Dataset[tuple[Image.Image, int]], index: int) -> Image.Image:
    return dataset[index][0]


def _name_pair(dataset: Dataset[tuple[Image.Image, int]], index: int) -> str:
    return f"{type(dataset).__name__}[{index}]"


@register_source("torch/NAME", uses=("download",))
def open_torch(config: DataConfig, split: str | None) -> ImageSource:
    """A split of a torchvision set; the test split is "validation".

    Raises:
        ValueError: if the set is unknown or not downloaded yet.
    """
    from timm.data import create_dataset

    name = config.source
    if not config.root:
        raise ValueError(f"data.root is not set; expected the folder where torchvision keeps {name!r}")
    try:
        dataset = create_dataset(name, root=config.root, split=split or "validation", download=config.download)
    except (RuntimeError, AssertionError) as error:  # not downloaded yet, or unknown to timm
        raise ValueError(f"data.source {name!r}: {error} (data.download true downloads a known set)") from error
    if hasattr(dataset, "loader"):  # sets of files: torchvision's own loader lets a file choose any decoder
        dataset.loader = open_image
    targets = np.asarray([int(t) for t in dataset.targets], dtype=np.int64)
    return ImageSource(list(dataset.classes), targets, partial(_read_pair, dataset), partial(_name_pair, dataset))
