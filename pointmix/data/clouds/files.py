"""Clouds in files of any kind, with the features that a configuration names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.io import CloudFile, open_clouds
from pointmix.utils.messages import counted

MOST_OPEN = 16  # files of many clouds that stay open in a process


def read_named(
    path: str | Path, cfg: PointDataConfig, *, index: int | None = None, columns: Sequence[str] | None = None
) -> NamedCloud:
    """The cloud in a file; kinds of files: `pointmix.io.read_cloud`.

    Args:
        cfg: its features, keys, columns and surface_points.
        index: which cloud, if the file holds many.
        columns: names of the columns without one; None: those of the configuration.

    Raises:
        ModuleNotFoundError: the library of the format is not installed.
        UnreadableSample: it cannot be read, or has no such feature.
    """
    with open_clouds(path, keys=cfg.keys, columns=cfg.columns if columns is None else columns) as file:
        return named_cloud(file, cfg, index=index)


def named_cloud(file: CloudFile, cfg: PointDataConfig, *, index: int | None) -> NamedCloud:
    """A cloud of an open file, with all of its points, NaN or not. Arguments and errors: `read_named`."""
    found = file.read(index, features=cfg.features, labels=(), dims=3, surface_points=cfg.surface_points, nan="keep")
    return NamedCloud(found.pos, found.features, color_scale=found.color_scale)


def warn_of_dropped(name: str, points: int) -> None:
    """Count the points of a cloud that `data.nan` drop leaves out."""
    warnings.warn(f"{name}: {counted(points, 'point')} dropped, NaN or infinite (data.nan drop)", stacklevel=3)


class OpenFiles:
    """Files of many clouds, the last 16 of which stay open. Every process opens its own.

    Args:
        keys, columns: see `pointmix.io.read_columns`.
    """

    def __init__(self, keys: Mapping[str, str] | None, columns: Sequence[str]) -> None:
        self.keys, self.columns = keys, columns
        self._process = -1
        self._files: dict[Path, tuple[CloudFile, ExitStack]] = {}

    def __getitem__(self, path: Path) -> CloudFile:
        """The file, open.

        Raises:
            UnreadableSample: it cannot be read.
        """
        if self._process != os.getpid():  # open files must not be shared with a forked process
            self._process, self._files = os.getpid(), {}
        found = self._files.pop(path, None)
        if found is None:
            while len(self._files) >= MOST_OPEN:
                self._files.pop(next(iter(self._files)))[1].close()
            stack = ExitStack()
            found = stack.enter_context(open_clouds(path, keys=self.keys, columns=self.columns)), stack
        self._files[path] = found  # the last one used is the last one closed
        return found[0]
