"""Labeled clouds in HDF5 files, as ScanObjectNN and ModelNet40 keep them.

Each file has `data` (n, N, 3) positions and `label` (n,) integers; `mask` (n, N), -1 for background, and features
(n, N) or (n, N, C), such as `rgb` and `normal`, are optional.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import h5py
import numpy as np
from jaxtyping import Bool, Int

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5_checks import check_file, class_names
from pointmix.data.clouds.named import NamedCloud
from pointmix.io.errors import UnreadableSample
from pointmix.io.formats.hdf5 import open_hdf5


class CloudFiles:
    """A `Source` of the labeled clouds of some files. Every process opens the files itself.

    Args:
        paths: the files. Shapes, types and labels are checked on opening, coordinates when a cloud is read.
        classes: names in the order of the labels. None: those in the files' attribute `classes` (comma-separated), else
            the labels themselves, which must then be 0 to the last without a gap.
        features: keys of the features to read.
        first: read only the first points of each cloud, this many. None: all.

    Attributes:
        classes, targets: names, and labels (n,) int64.
        points: points of each cloud; the smallest number if the files differ.
        stated_classes: names in the files' attribute, or None.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or not HDF5, lacks a key, or holds other shapes, types or labels; names file
            and key.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        classes: Sequence[str] | None = None,
        features: Sequence[str] = (),
        first: int | None = None,
    ) -> None:
        self.paths, self.features, self.first = [str(path) for path in paths], tuple(features), first
        self._open: tuple[int, dict[int, list[h5py.Dataset]]] = (-1, {})  # process id, file -> datasets
        labels, sizes, stated = [], [], set()
        for path in self.paths:
            with open_hdf5(path) as file:
                label, points = check_file(file, path, self.features)
                labels.append(label)
                sizes.append(points)
                joined = file.attrs.get("classes")
                joined = joined.decode() if isinstance(joined, bytes) else joined
                if not isinstance(joined, str | None):
                    raise ValueError(f"{path}: the attribute classes must be text, comma-separated names")
                stated.add(joined)
        self.points = min(sizes)
        self.targets: Int[np.ndarray, " n"] = np.concatenate(labels)
        self.starts = np.cumsum([0, *map(len, labels)])
        joined = stated.pop() if len(stated) == 1 else None
        self.stated_classes = None if joined is None else joined.split(",")
        self.classes = class_names(classes or self.stated_classes, self.targets, ", ".join(self.paths))

    def __len__(self) -> int:
        return len(self.targets)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": (-1, {})}  # a spawned worker opens its own files

    def name(self, index: int) -> str:
        """FILE[ROW]"""
        place, row = self._place(index)
        return f"{self.paths[place]}[{row}]"

    def read(self, index: int) -> NamedCloud:
        """One cloud: positions in double precision if the file has it, else in float32; features as in the file.

        Raises:
            UnreadableSample: if it cannot be read.
        """
        place, row = self._place(index)
        try:
            rows = [array[row, : self.first] for array in self._arrays(place)]
        except OSError as error:
            raise UnreadableSample(str(error).splitlines()[0]) from error
        xyz = np.asarray(rows[0], dtype=np.float64 if rows[0].dtype.itemsize >= 8 else np.float32)
        return NamedCloud(xyz, dict(zip(self.features, rows[1:], strict=True)))

    def on_object(self, index: int) -> Bool[np.ndarray, " N"] | None:
        """Which points of a cloud belong to the object rather than the background; None if the file has no `mask`."""
        place, row = self._place(index)
        with open_hdf5(self.paths[place]) as file:
            return np.asarray(file["mask"][row, : self.first] != -1) if "mask" in file else None

    def _place(self, index: int) -> tuple[int, int]:
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        return place, int(index - self.starts[place])

    def _arrays(self, place: int) -> list[h5py.Dataset]:
        process, files = self._open
        if process != os.getpid():  # file handles must not be shared with a forked process
            files = {}
            self._open = (os.getpid(), files)
        if place not in files:
            file = open_hdf5(self.paths[place])
            files[place] = [file[key] for key in ("data", *self.features)]
        return files[place]


class FileOptions(TypedDict):
    """Arguments of `CloudFiles`."""

    classes: Sequence[str] | None
    features: Sequence[str]
    first: int | None


def file_options(config: PointDataConfig) -> FileOptions:
    """The arguments of `CloudFiles` that a configuration asks for."""
    first = config.most_points if config.sampling == "first" else None
    return {"classes": config.classes, "features": config.features, "first": first}


def check_points(config: PointDataConfig, files: CloudFiles) -> None:
    """Raise ValueError if the clouds have fewer points than a configuration asks for."""
    if config.points is not None and config.points > files.points:
        where = files.name(0).removesuffix("[0]")
        raise ValueError(f"data.points {config.points}: the clouds of {where} have {files.points} points")
