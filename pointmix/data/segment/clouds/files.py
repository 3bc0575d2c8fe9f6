"""Labeled clouds in files, before their labels become classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pointmix.io import FoundCloud, read_columns
from pointmix.io.names import LABEL_NAMES


def read_file(
    path: str | Path,
    label_name: str | None = None,
    *,
    index: int | None = None,
    keys: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
) -> FoundCloud:
    """The cloud in a file of any kind that `pointmix.io.read_columns` knows; of a mesh the vertices, which may be
    labeled. Points with NaN are kept, see `data.nan`.

    Args:
        label_name: name of the labels, in upper or lower case; unset: the first of `LABEL_NAMES`.
        index: which cloud, if the file holds many.
        keys, columns: see `read_columns`; a column may be that of the labels.

    Raises:
        ModuleNotFoundError: if the library of the format is not installed.
        UnreadableSample: if it cannot be read or has no positions.
    """
    labels = LABEL_NAMES if label_name is None else (label_name,)
    return read_columns(path, index, labels=labels, dims=3, surface_points=0, nan="keep", keys=keys, columns=columns)
