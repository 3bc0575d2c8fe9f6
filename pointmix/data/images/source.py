"""The registry of image sources, and images of a source as decoded bytes. A source is one function:

    @register_source("my_images")
    def open_mine(config: DataConfig, split: str | None) -> Source[Image.Image]:
        ...

See `pointmix.data.source.Source` for what it returns, and `ImageSource` for the short way to make one; split None is
the test split under its usual name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int
from PIL import Image

from pointmix.data.images.config import OF_SOURCES, DataConfig
from pointmix.data.source import Source, SourceRegistry
from pointmix.io import image_files
from pointmix.io.errors import UnreadableSample

SOURCES: SourceRegistry[DataConfig, str | None, Source[Image.Image]] = SourceRegistry(OF_SOURCES)
register_source = SOURCES.register


@dataclass(frozen=True)
class ImageSource:
    """A `Source` of labeled images.

    Args:
        classes: names, in the order of the labels.
        targets: (N,) int64 labels, known without reading an image.
        read: index -> Pillow image, not necessarily decoded; may raise anything for a damaged file.
        name: index -> what messages call the image, its path if it has one.
        val_split: the split for model selection, where the data have one beside train and test.
    """

    classes: list[str]
    targets: Int[np.ndarray, " N"]
    read: Callable[[int], Image.Image]
    name: Callable[[int], str]
    val_split: str | None = None


def decode(source: Source[Image.Image], index: int, mode: str) -> Image.Image:
    """Decode one image completely, see `pointmix.io.image_files.decode`."""
    return image_files.decode(lambda: source.read(index), mode)


def _from_cache(images: dict[int, np.ndarray | UnreadableSample], index: int) -> Image.Image:
    image = images[index]
    if isinstance(image, UnreadableSample):
        raise image
    return Image.fromarray(image)


def cached(source: Source[Image.Image], indices: Int[np.ndarray, " n"], mode: str) -> ImageSource:
    """Decode these images now and keep their bytes in memory, which forked workers share."""
    images: dict[int, np.ndarray | UnreadableSample] = {}
    for index in indices.tolist():
        try:
            images[index] = np.asarray(decode(source, index, mode))  # (H, W) or (H, W, C) uint8
        except UnreadableSample as error:
            images[index] = error
    return ImageSource(source.classes, source.targets, partial(_from_cache, images), source.name)
