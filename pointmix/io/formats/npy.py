"""NumPy arrays: one in a .npy file, several by name in a .npz archive.

Sizes are checked against `pointmix.utils.limits` before anything is read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from io import BufferedIOBase
from pathlib import Path
from types import EllipsisType
from typing import IO

import numpy as np

from pointmix.io.names import POSITIONS, join_vectors
from pointmix.io.registry import Columns, register_reader
from pointmix.utils.limits import check_array, check_limit, regular_file


@register_reader(".npy", many=True)
def read_npy_columns(path: Path) -> Columns:
    """The array of a .npy file as the column "data": positions, then features; or its records' fields as columns."""
    path = regular_file(path)
    with open(path, "rb") as file:
        shape, dtype = _checked_header(file, left=path.stat().st_size, what="the array")
    return (
        {"data": _Unread(shape, dtype, lambda: read_npy(path))}
        if dtype.names is None
        else record_columns(read_npy(path))
    )


def record_columns(records: np.ndarray) -> Columns:
    """The fields of a structured array (N,): xyz, colors, normals, and others under their names."""
    if records.ndim != 1:
        raise ValueError(f"records are {records.shape}, expected one a point, (N,)")
    fields = {name: records[name] for name in records.dtype.names or ()}
    return fields if any(name in fields for name in POSITIONS) else join_vectors(fields, "fields")


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a .npy file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a .npy file of numbers, is cut off, or is larger than the limit ARRAY_BYTES.
    """
    path = regular_file(path)
    with open(path, "rb") as file:
        return _read_array(file, left=path.stat().st_size, what="the array")


def _read_array(file: IO[bytes] | BufferedIOBase, *, left: int, what: str) -> np.ndarray:
    start = file.tell()
    _checked_header(file, left=left, what=what)
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


def _checked_header(file: IO[bytes] | BufferedIOBase, *, left: int, what: str) -> tuple[tuple[int, ...], np.dtype]:
    shape, dtype = _header(file, what)
    asked = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape, default=0) < 0 or asked > left:
        raise ValueError(f"{what} is cut off: it should have shape {shape} of {dtype}")
    check_array(shape, dtype.itemsize, what)
    return shape, dtype


def _header(file: IO[bytes] | BufferedIOBase, what: str) -> tuple[tuple[int, ...], np.dtype]:
    version, start = np.lib.format.read_magic(file), file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    check_limit("METADATA_BYTES", length, "the header")  # NumPy would read all of it before it complains
    file.seek(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{what} holds Python objects, expected numbers")
    return shape, dtype


class _Unread:
    """An array of which only the header has been read; the values are on first use."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], np.ndarray]) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self._read = cache(read)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | EllipsisType | tuple[int, ...]) -> np.ndarray:
        return np.asarray(self._read()[index])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._read(), dtype=dtype, copy=copy)


class _Members(Mapping[str, _Unread]):
    """The arrays of a .npz file by name; each is read on first use."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self._opened: dict[str, _Unread] = {}

    def __getitem__(self, name: str) -> _Unread:
        if name not in self._opened:
            info = self._names[name]
            with self._archive.open(info) as member:
                shape, dtype = _checked_header(member, left=info.file_size, what=name)
            self._opened[name] = _Unread(shape, dtype, partial(self._read, name))
        return self._opened[name]

    def _read(self, name: str) -> np.ndarray:
        info = self._names[name]
        with self._archive.open(info) as member:
            return _read_array(member, left=info.file_size, what=name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping would read its header

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@register_reader(".npz", many=True)
@contextmanager
def open_npz(path: str | Path) -> Iterator[Columns]:
    """The arrays of a .npz file, each read on first use.

    Sizes are taken from the headers and checked before anything is decompressed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a complete archive; on access to an array, as `read_npy`.
    """
    try:
        archive = zipfile.ZipFile(regular_file(path))
    except zipfile.BadZipFile as e:
        raise ValueError("not a complete .npz archive") from e
    with archive:
        yield _Members(archive)
