"""Sources of samples: the protocol, and the registry that finds them by name.

A source is one function that opens a split, registered by the name that `data.source` takes: with
`pointmix.data.clouds.source.register_source` for clouds, with `pointmix.data.images.source.register_source` for images,
with `pointmix.data.detect.source.register_detect_source` for images with objects. Those of this package are in
`data/clouds/sources/`, `data/images/sources/` and `data/detect/sources/`, a module a source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Num


@runtime_checkable
class SourceSettings(Protocol):
    """The settings of data, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def source(self) -> str: ...


Config = TypeVar("Config", bound=SourceSettings)
Split = TypeVar("Split")  # str for clouds; images may be asked for None, the test split under its usual name
Sample = TypeVar("Sample")
Opened = TypeVar("Opened")  # what a source opens, such as Source[Image.Image]
Sample_co = TypeVar("Sample_co", covariant=True)


@runtime_checkable
class Readable(Protocol[Sample_co]):
    """Samples that can be read in any order, and from several worker processes."""

    def read(self, index: int) -> Sample_co:
        """One sample, such as a Pillow image, or a `PointSet` of one cloud.

        Raises:
            pointmix.io.errors.UnreadableSample: if it is damaged; training then skips it and reports it.
        """

    def name(self, index: int) -> str:
        """What messages call a sample: its path, if it has one."""


@runtime_checkable
class Source(Readable[Sample_co], Protocol[Sample_co]):
    """Samples with one target each."""

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the labels."""

    @property
    def targets(self) -> Num[np.ndarray, " N"]:
        """int64 labels, or floating point targets of a regression; known without reading a sample."""


@dataclass(frozen=True)
class SourceEntry(Generic[Config, Split, Opened]):
    """A registered source.

    Args:
        open: (configuration, split) -> the samples of a split.
        check: refuses settings that do not suit the source, before anything is read.
        uses: of the settings that only some sources use, those that this one does; None: any.
        defaults: values for settings that are None.
        has_val: whether the data have a validation split, which is then opened as the split val.
    """

    open: Callable[[Config, Split], Opened]
    check: Callable[[Config], None] = lambda config: None
    uses: Collection[str] | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    has_val: Callable[[Config], bool] = lambda config: False


class SourceRegistry(Generic[Config, Split, Opened]):
    """Sources by name. A name PREFIX/NAME is found by its prefix; the source gets the whole name as `config.source`.

    Args:
        of_sources: settings that only some sources use.
    """

    def __init__(self, of_sources: Collection[str] = ()) -> None:
        self.of_sources = of_sources
        self._entries: dict[str, tuple[str, SourceEntry[Config, Split, Opened]]] = {}

    def register(
        self,
        name: str,
        *,
        check: Callable[[Config], None] = lambda config: None,
        uses: Collection[str] | None = None,
        defaults: Mapping[str, object] | None = None,
        has_val: Callable[[Config], bool] = lambda config: False,
    ) -> Callable[[Callable[[Config, Split], Opened]], Callable[[Config, Split], Opened]]:
        """Decorator: open the source `name` with this function.

        Args:
            name: as in `data.source`; "hfds/NAME" registers every name with the prefix hfds.
            check, uses, defaults, has_val: see `SourceEntry`.

        Raises:
            ValueError: if the name is taken.
        """
        prefix = name.partition("/")[0]
        if prefix in self._entries:
            raise ValueError(f"a data source {prefix!r} is registered already")

        def add(open_split: Callable[[Config, Split], Opened]) -> Callable[[Config, Split], Opened]:
            self._entries[prefix] = name, SourceEntry(open_split, check, uses, defaults or {}, has_val)
            return open_split

        return add

    def find(self, name: str) -> SourceEntry[Config, Split, Opened]:
        """The source of this name.

        Raises:
            ValueError: if there is none; the message lists all names.
        """
        if name not in self:
            own = "or a source that your own module registers (--import MODULE)"
            raise ValueError(f"data.source {name!r}: expected one of {', '.join(self)}, {own}")
        return self._entries[name.partition("/")[0]][1]

    def checked(self, config: Config) -> SourceEntry[Config, Split, Opened]:
        """The source of these settings.

        Raises:
            ValueError: if there is none, or a setting is set that it does not use or that does not suit it.
        """
        entry = self.find(config.source)
        entry.check(config)
        default = {known.name: known.default for known in fields(config)}
        for key in self.of_sources if entry.uses is not None else ():
            if key not in (entry.uses or ()) and getattr(config, key) != default[key]:
                raise ValueError(f"data.{key} is set, but data.source is {config.source}, which does not use it")
        return entry

    def open_labeled(
        self: SourceRegistry[Config, Split, Source[Sample]], name: str, config: Config, split: Split
    ) -> Source[Sample]:
        """A split of the source of this name, for classification.

        Raises:
            ValueError: if there is no such source, or its targets are no labels.
        """
        source = self.find(name).open(config, split)
        if (dtype := np.asarray(source.targets).dtype).kind not in "iu":
            raise ValueError(f"data.source {name!r} has targets of type {dtype}, expected int64 labels")
        return source

    def __contains__(self, name: str) -> bool:
        prefix, _, rest = name.partition("/")
        return prefix in self._entries and ("/" in self._entries[prefix][0] or not rest)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._entries.values())
