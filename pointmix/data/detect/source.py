"""The registry of sources of images with objects. A source is one function:

    @register_detect_source("coco")
    def open_coco(config: DetectDataConfig, split: str) -> DetectSource | None:
        ...

`split` is "train", "val" or "test". The function returns None for "val" if the data have no validation split of their
own; a part of train is then held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.sample import ObjectImage
from pointmix.data.source import Readable

Open = Callable[[DetectDataConfig, str], "DetectSource | None"]


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


@dataclass(frozen=True)
class DetectEntry:
    """A registered source.

    Args:
        open: (configuration, split) -> the samples of a split, None if there is no such split.
        check: refuses settings that do not suit the source, before anything is read.
        defaults: values for settings that are None.
    """

    open: Open
    check: Callable[[DetectDataConfig], None] = lambda config: None
    defaults: Mapping[str, object] = field(default_factory=dict)


class DetectRegistry:
    """Sources by name."""

    def __init__(self) -> None:
        self._entries: dict[str, DetectEntry] = {}

    def register(
        self,
        name: str,
        *,
        check: Callable[[DetectDataConfig], None] = lambda config: None,
        defaults: Mapping[str, object] | None = None,
    ) -> Callable[[Open], Open]:
        """Decorator: open the source `name` with this function; arguments as in `DetectEntry`.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"a data source {name!r} is registered already")

        def add(open_split: Open) -> Open:
            self._entries[name] = DetectEntry(open_split, check, defaults or {})
            return open_split

        return add

    def find(self, name: str) -> DetectEntry:
        """The source of this name.

        Raises:
            ValueError: if there is none; the message lists all names.
        """
        if name not in self._entries:
            own = "or a source that your own module registers (--import MODULE)"
            raise ValueError(f"data.source {name!r}: expected one of {', '.join(self)}, {own}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


DETECT_SOURCES = DetectRegistry()
register_detect_source = DETECT_SOURCES.register
