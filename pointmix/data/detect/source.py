"""The registry of sources of images with objects. A source is one function:

    @register_detect_source("coco")
    def open_coco(config: DetectDataConfig, split: str) -> DetectSource | None:
        ...

`split` is "train", "val" or "test". The function returns None for "val" if the data have no validation split of their
own; a part of train is then held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pointmix.data.detect.config import OF_SOURCES, DetectDataConfig
from pointmix.data.detect.sample import ObjectImage
from pointmix.data.source import Readable, SourceRegistry


@runtime_checkable
class DetectSource(Readable[ObjectImage], Protocol):
    """Images with objects."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the labels."""

    @property
    def category_ids(self) -> Sequence[int]:
        """Number of each class in the files, for results in COCO's form; 1 to K if the files have none."""

    @property
    def has_masks(self) -> bool:
        """Whether objects have masks, and else boxes only."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """H, W of an image without reading its pixels; raises what `read` raises."""

    def has_objects(self, index: int) -> bool:
        """Whether an image has objects to train on, without reading it; true if that is not known."""


DETECT_SOURCES: SourceRegistry[DetectDataConfig, str, DetectSource | None] = SourceRegistry(OF_SOURCES)
register_detect_source = DETECT_SOURCES.register
