"""A list of labeled clouds in files of one cloud or many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.files import OpenFiles, named_cloud, read_named
from pointmix.data.clouds.named import NamedCloud
from pointmix.io import open_clouds
from pointmix.io.errors import UnreadableSample
from pointmix.io.registry import MANY_CLOUDS


class Place(NamedTuple):
    """Where a cloud is: a file, and its number there from 0, None if it is the only one."""

    path: Path
    cloud: int | None = None


@dataclass(frozen=True)
class ListedClouds:
    """A `Source` of labeled clouds in files.

    Args:
        classes: names, in the order of the labels.
        places: where the clouds are.
        targets: (N,) labels.
        config: how the files are read, see `read_named`.
    """

    classes: list[str]
    places: Sequence[Place]
    targets: Int64[np.ndarray, " N"]
    config: PointDataConfig
    files: OpenFiles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", OpenFiles(self.config.keys, self.config.columns))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "files": OpenFiles(self.config.keys, self.config.columns)}  # a copy opens its own

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """FILE, or FILE[NUMBER] in a file of many clouds."""
        path, cloud = self.places[index]
        return str(path) if cloud is None else f"{path}[{cloud}]"

    def read(self, index: int) -> NamedCloud:
        """One cloud, with the features that the configuration names.

        Raises:
            UnreadableSample: it cannot be read.
        """
        path, cloud = self.places[index]
        if cloud is None:
            return read_named(path, self.config)
        return named_cloud(self.files[path], self.config, index=cloud)


def places_in(files: Iterable[Path], config: PointDataConfig) -> tuple[list[Place], Int64[np.ndarray, " F"]]:
    """The clouds in some files, and how many each file holds. Only files of a kind that may hold many are opened, and
    no cloud is read; a damaged file counts as one cloud, whose reading then fails."""
    places: list[Place] = []
    counts = []
    for path in files:
        count = 1
        if path.suffix.lower() in MANY_CLOUDS:
            try:
                with open_clouds(path, keys=config.keys, columns=config.columns) as file:
                    count = len(file)
            except UnreadableSample:
                pass
        counts.append(count)
        places += numbered(path, count)
    return places, np.array(counts, dtype=np.int64)


def numbered(path: Path, count: int) -> list[Place]:
    """The clouds of a file."""
    return [Place(path)] if count == 1 else [Place(path, cloud) for cloud in range(count)]
