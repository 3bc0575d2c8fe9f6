"""Labeled clouds in files, before their labels become classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from pointmix.data.clouds.features import feature_name
from pointmix.data.segment.clouds.labels import LABEL_NAMES
from pointmix.io import formats  # noqa: F401  registers the readers
from pointmix.io.errors import UnreadableSample
from pointmix.io.registry import CLOUD_READERS, POSITIONS
from pointmix.io.validate import check_numbers, check_read
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

COORDINATES = (*POSITIONS, "coord", "coords")
Arrays = Mapping[str, Shaped[np.ndarray, "N ..."]]


class FoundCloud(NamedTuple):
    """What a file or a folder holds.

    Args:
        pos: (N, 3) float32 or float64.
        features: name -> (N,) or (N, C); colors are rgb, normals are normal.
        label: (N,) or (N, 1) as in the file, None if it has none.
    """

    pos: Float[np.ndarray, "N 3"]
    features: Arrays
    label: Shaped[np.ndarray, "N ..."] | None


def read_file(path: str | Path, label_name: str | None = None) -> FoundCloud:
    """The cloud in a .ply, .las, .laz or .npz file, or of a format with a reader of your own.

    Positions are under pos, xyz, points, data or coord; labels under `label_name`, or unset the first of `LABEL_NAMES`,
    in upper or lower case; every other array of a row a point is a feature by its name.

    Raises:
        ModuleNotFoundError: if the library of the format is not installed.
        UnreadableSample: if it cannot be read or has no positions.
    """
    path = Path(path)
    try:
        columns = _columns(path)
        name = next((name for name in COORDINATES if name in columns), None)
        if name is None:
            raise ValueError(f"expected positions under one of {', '.join(COORDINATES)}, found {', '.join(columns)}")
        pos = as_positions(columns.pop(name))
    except ImportError:
        raise
    except Exception as e:  # decoders raise many kinds of errors on damaged bytes
        raise UnreadableSample(f"cannot read it: {one_line(e)}") from e
    wanted = LABEL_NAMES if label_name is None else (label_name.lower(),)
    lower = {name.lower(): name for name in columns}
    found = next((lower[name] for name in wanted if name in lower), None)
    label = None if found is None else columns.pop(found)
    return FoundCloud(pos, {feature_name(n): a for n, a in columns.items() if len(a) == len(pos)}, label)


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in a file."""
    reader = CLOUD_READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"unknown kind of file, expected one of {', '.join(CLOUD_READERS)}")
    opened = reader(regular_file(path))
    with opened if isinstance(opened, AbstractContextManager) else nullcontext(opened) as columns:
        found = {}
        for name in columns:
            value = columns[name]
            if getattr(getattr(value, "dtype", None), "kind", "") not in tuple("uifb") or not getattr(value, "ndim", 0):
                continue  # text, elements of a .ply, groups, single numbers
            array = check_numbers(name, value)
            check_read(array, array.shape, name)
            found[name] = array[...]
        return found


def as_positions(found: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "N 3"]:
    """Positions as float32, or float64 where they have as many bytes.

    Raises:
        UnreadableSample: for another shape or type.
    """
    if found.ndim != 2 or found.shape[1] != 3 or found.dtype.kind not in "uif":
        raise UnreadableSample(f"positions are {found.shape} {found.dtype}, expected numbers (N, 3)")
    wide = found.dtype.itemsize > 4 or found.dtype.kind != "f" and found.dtype.itemsize == 4
    return np.ascontiguousarray(found, dtype=np.float64 if wide else np.float32)
