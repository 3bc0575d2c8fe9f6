"""The registry of sources with a label for every pixel or point. A source is one function:

    @register_segment_source("camvid", kind="image")
    def open_camvid(config: SegmentDataConfig, split: str) -> SegmentSource[LabeledImage] | None:
        ...

`split` is "train", "val" or "test". The function returns None for "val" if the data have no validation split of their
own; a part of train is then held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import LabeledCloud, LabeledImage
from pointmix.data.source import Readable

Sample_co = TypeVar("Sample_co", covariant=True)
Color = tuple[int, int, int]
Kind = Literal["image", "rgbd", "cloud"]  # LabeledImage, LabeledImage with depth, LabeledCloud


@runtime_checkable
class SegmentSource(Readable[Sample_co], Protocol[Sample_co]):
    """Samples with a label for every pixel or point."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in the order of the labels."""

    @property
    def palette(self) -> Sequence[Color] | None:
        """Color of each class, 0 to 255; None for default colors."""

    @property
    def categories(self) -> Mapping[str, Sequence[int]] | None:
        """Name of each category of objects, in the order of their numbers, and the labels of its parts; None for
        scenes and images."""

    def __len__(self) -> int: ...


Open = Callable[[SegmentDataConfig, str], SegmentSource[LabeledImage] | SegmentSource[LabeledCloud] | None]


@dataclass(frozen=True)
class SegmentEntry:
    """A registered source.

    Args:
        open: (configuration, split) -> the samples of a split, None if there is no such split.
        kind: what it reads.
        check: refuses settings that do not suit the source, before anything is read.
        defaults: values for settings that are None.
    """

    open: Open
    kind: Kind
    check: Callable[[SegmentDataConfig], None] = lambda config: None
    defaults: Mapping[str, object] = field(default_factory=dict)


class SegmentRegistry:
    """Sources by name."""

    def __init__(self) -> None:
        self._entries: dict[str, SegmentEntry] = {}

    def register(
        self,
        name: str,
        *,
        kind: Kind,
        check: Callable[[SegmentDataConfig], None] = lambda config: None,
        defaults: Mapping[str, object] | None = None,
    ) -> Callable[[Open], Open]:
        """Decorator: open the source `name` with this function; arguments as in `SegmentEntry`.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"a data source {name!r} is registered already")

        def add(open_split: Open) -> Open:
            self._entries[name] = SegmentEntry(open_split, kind, check, defaults or {})
            return open_split

        return add

    def find(self, name: str) -> SegmentEntry:
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


SEGMENT_SOURCES = SegmentRegistry()
register_segment_source = SEGMENT_SOURCES.register
