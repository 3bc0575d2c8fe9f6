"""LAS and LAZ: airborne and terrestrial laser scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pointmix.io.registry import Columns, register_reader, require
from pointmix.utils.limits import check_array, regular_file

COLORS = {"red", "green", "blue"}
RECORD = 54  # bytes of the header of a variable length record, ASPRS LAS 1.4
OWN = {"X", "Y", "Z", *COLORS}  # dimensions that become columns under other names
FLAGS = {"synthetic", "key_point", "withheld", "overlap", "scan_direction_flag", "edge_of_flight_line"}


@register_reader(".las", ".laz")
def read_las(path: Path) -> Columns:
    """The points of a .las or .laz file: xyz (float64, in the unit of the file), rgb if there are colors, and
    intensity, return_number, number_of_returns, classification and further dimensions under laspy's names, no flags.

    Colors are integers of 16 bits, but some programs write values of 8 bits into them: colors of a file none of which
    is above 255 are taken for these and become uint8.

    Raises:
        ModuleNotFoundError: if laspy is not installed, or lazrs for compressed points.
        ValueError: if the file is cut off, or its points take more bytes than the limit ARRAY_BYTES.
    """
    laspy = require("laspy", path)
    _check_records(regular_file(path))
    with laspy.open(path, read_evlrs=False) as reader:
        header = reader.header
        points, size = header.point_count, header.point_format.size
        check_array((points, 3), 8, "the points")
        check_array((points,), size, "the points")
        left = max(path.stat().st_size - header.offset_to_point_data, 0)
        if header.are_points_compressed:
            require("lazrs", path)
            _check_chunks(path, header.offset_to_point_data)
        elif points * size > left:
            raise ValueError(f"the file is cut off: its header names {points} points of {size} bytes, {left} follow")
        las = reader.read()
    return _Dimensions(las)


class _Dimensions(Mapping[str, np.ndarray]):
    """The dimensions of the points of laspy by name; each is unpacked when it is looked up."""

    def __init__(self, las: Any) -> None:
        self._las = las
        names = set(las.point_format.dimension_names)
        self._names = ["xyz", *["rgb"] * (names >= COLORS), *sorted(names - OWN - FLAGS)]

    def __getitem__(self, name: str) -> np.ndarray:
        las = self._las
        if name == "xyz":
            return _positions(np.stack([las.X, las.Y, las.Z], axis=1), las.header.scales, las.header.offsets)
        if name == "rgb":
            colors = np.stack([las.red, las.green, las.blue], axis=1)
            return colors.astype(np.uint8) if colors.max(initial=0) < 256 else colors
        if name not in self._names:
            raise KeyError(name)
        return np.asarray(las[name])

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping would unpack it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _positions(steps: np.ndarray, scales: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The positions of the integers in a file, to 1 / 16384 of its resolution, the scale, or finer.

    Multiples of a power of two, so that sums and differences are exact: a file that differs from another in whole
    numbers of the offsets holds the same shape to the last bit, although decimal scales such as 0.001 are not exact.

    Args:
        steps: (N, 3) integers.
        scales, offsets: (3,); positions are steps * scales + offsets.
    """
    if not (np.isfinite(offsets).all() and (abs(np.log10(np.maximum(scales, 1e-99))) <= 12).all()):
        raise ValueError(f"its header has scales {scales.tolist()} and offsets {offsets.tolist()}; it is damaged")
    grid = np.ldexp(1.0, np.frexp(scales)[1] - 15)
    return np.rint(steps * (scales / grid)) * grid + np.rint(offsets / grid) * grid


def _check_records(path: Path) -> None:
    """Refuse a header that names more records than the file has bytes for; laspy would go on past its end."""
    with open(path, "rb") as file:
        if file.read(4) != b"LASF":
            raise ValueError("it does not begin with LASF, as .las and .laz files do")
        file.seek(100)
        records = int.from_bytes(file.read(4), "little")
    if records * RECORD > path.stat().st_size:
        raise ValueError(f"the file is cut off or damaged: its header names {records} records")


def _check_chunks(path: Path, start: int) -> None:
    """Refuse compressed points with more chunks than the file has bytes; lazrs would end the process for want of
    memory.

    Args:
        start: of the points, which begin with the place of the table of chunks, or -1 if it is at the end of the file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        table = _int64(file, start)
        if table == -1:
            table = _int64(file, size - 8)
        if not 0 < table <= size - 8:
            raise ValueError("the file is cut off or damaged: its points have no table of chunks")
        chunks = _int64(file, table) >> 32  # after a version
    if not 0 <= chunks <= size:
        raise ValueError(f"the file is cut off or damaged: its points are in {chunks} chunks")


def _int64(file: BinaryIO, at: int) -> int:
    file.seek(max(at, 0))
    return int.from_bytes(file.read(8), "little", signed=True)
