"""Clouds in files of any kind, with the features that a configuration names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.io.columns import read_columns
from pointmix.utils.messages import counted


def read_named(
    path: str | Path, cfg: PointDataConfig, *, index: int | None = None, columns: Sequence[str] | None = None
) -> NamedCloud:
    """The cloud in a file; kinds of files: `pointmix.io.read_cloud`.

    Args:
        cfg: its features, keys, columns, surface_points and nan.
        index: which cloud, if the file holds many.
        columns: names of the columns without one; None: those of the configuration.

    Raises:
        ModuleNotFoundError: the library of the format is not installed.
        UnreadableSample: it cannot be read, or has no such feature.
    """
    found = read_columns(
        path,
        index,
        features=cfg.features,
        labels=(),
        keys=cfg.keys,
        columns=cfg.columns if columns is None else columns,
        dims=3,
        surface_points=cfg.surface_points,
        nan=cfg.nan,
    )
    if found.dropped:
        warn_of_dropped(str(path), found.dropped)
    return NamedCloud(found.pos, found.features)


def warn_of_dropped(name: str, points: int) -> None:
    """Count the points of a cloud that `data.nan` drop leaves out."""
    warnings.warn(f"{name}: {counted(points, 'point')} dropped, NaN or infinite (data.nan drop)", stacklevel=3)
