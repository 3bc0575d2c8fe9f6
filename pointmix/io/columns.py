"""Point clouds in files as positions, features by name, and labels; values as in the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pointmix.io import formats, registry  # noqa: F401  formats registers the readers
from pointmix.io.cloud_file import CloudFile, FoundCloud, unreadable
from pointmix.io.formats.text import SUFFIXES, is_table
from pointmix.io.mesh import SURFACE_POINTS
from pointmix.io.names import LABEL_NAMES
from pointmix.io.stored import find_clouds
from pointmix.utils.limits import regular_file


def read_columns(
    path: str | os.PathLike[str],
    index: int | None = None,
    *,
    features: Sequence[str] | None = None,
    labels: Sequence[str] = LABEL_NAMES,
    keys: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    dims: int | None = None,
    surface_points: int = SURFACE_POINTS,
    nan: str = "refuse",
) -> FoundCloud:
    """The cloud in a file, its features by name, with values as in the file. Kinds of files: `read_cloud`.

    Args:
        index: which cloud, if the file holds many.
        features: names of the features to read, in upper or lower case, with or without CloudCompare's scalar_; colors
            are rgb, normals are normal. None: all with a row a point, without labels.
        labels: names of labels, in upper or lower case; the first that the file has counts.
        keys: our name -> name in the file, for files with other names: pos or the name of a feature.
        columns: names of the columns without one, in order: those after x, y, z in a text file without a header, a .npy
            or a data array, or of feat. rgb and normal are three columns each, others one.
        dims: D; None: any.
        surface_points: number of points on the surface of a mesh, 0 for its vertices.
        nan: "refuse" NaN and infinite values of positions and of the named features, "drop" their points, or "keep"
            them.

    Raises:
        ModuleNotFoundError: if the library of the format is not installed.
        UnreadableSample: if it cannot be read, or has no such cloud or feature; the reason alone.
    """
    with open_clouds(path, keys=keys, columns=columns) as file:
        return file.read(index, features=features, labels=labels, dims=dims, surface_points=surface_points, nan=nan)


@contextmanager
def open_clouds(
    path: str | os.PathLike[str], *, keys: Mapping[str, str] | None = None, columns: Sequence[str] = ()
) -> Iterator[CloudFile]:
    """A file of one cloud or many, open for reading one after the other. Arguments and errors: `read_columns`."""
    path, keys = Path(path), dict(keys or {})
    with ExitStack() as stack:
        with unreadable():
            reader = registry.CLOUD_READERS.get(path.suffix.lower())
            if reader is None:
                known = ", ".join([*registry.CLOUD_READERS, *registry.IMAGE_READERS])
                raise ValueError(f"unknown kind of file, expected one of {known}")
            opened = reader(regular_file(path))
            arrays = stack.enter_context(opened) if isinstance(opened, AbstractContextManager) else opened
            stored = find_clouds(arrays, keys.pop("pos", None))
        yield CloudFile(stored, keys, tuple(columns))


def is_cloud(path: str | os.PathLike[str]) -> bool:
    """Whether a file in a folder is a cloud: its suffix has a reader, and text is a table of numbers, not a note or a
    list of files."""
    path = Path(path)
    suffix = path.suffix.lower()
    return suffix in registry.CLOUD_READERS and (suffix not in SUFFIXES or not path.is_file() or is_table(path))
