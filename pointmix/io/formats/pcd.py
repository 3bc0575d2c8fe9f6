"""PCD, the format of the Point Cloud Library, as text, binary or compressed (version 0.7)."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pointmix.io.names import join_vectors
from pointmix.io.registry import Columns, register_reader
from pointmix.utils.limits import check_array, limit, regular_file
from pointmix.utils.messages import one_line

KINDS = {"F": "f", "I": "i", "U": "u"}  # of values in PCD -> in NumPy


class _Header(NamedTuple):
    """Fields of a point, number of points, and how they are stored."""

    dtype: np.dtype
    points: int
    data: str


@register_reader(".pcd")
def read_pcd(path: Path) -> Columns:
    """The fields of a .pcd file: xyz, colors (from packed rgb or rgba too), normals, and others under their names.

    Raises:
        ValueError: if it is cut off or damaged, or larger than the limit ARRAY_BYTES.
    """
    path = regular_file(path)
    with open(path, "rb") as file:
        header = _header(file)
        left = path.stat().st_size - file.tell()
        row = 2 * len(header.dtype.names or ()) if header.data == "ascii" else header.dtype.itemsize
        needed = header.points * row  # bytes, at least
        if header.data != "binary_compressed" and needed > left + 1:  # of text, the last line need not end
            raise ValueError(f"the file is cut off: its header names {header.points} points, {left} bytes follow")
        check_array((header.points,), header.dtype.itemsize, "the points")
        read = {"ascii": _text, "binary": _binary, "binary_compressed": _compressed}[header.data]
        fields = read(file, header)
    single: dict[str, np.ndarray] = {}
    for name, value in fields.items():
        if name.lower() in ("rgb", "rgba") and value.ndim == 1 and value.dtype.itemsize == 4:
            packed = np.ascontiguousarray(value).view(np.uint32)
            single |= {part: (packed >> shift).astype(np.uint8) for part, shift in zip("rgb", (16, 8, 0), strict=True)}
        elif name != "_":  # padding
            single[name] = value
    return join_vectors(single, "fields")


def _header(file: BinaryIO) -> _Header:
    found: dict[str, list[str]] = {}
    while "DATA" not in found:
        line = file.readline(limit("METADATA_BYTES"))
        words = line.decode("ascii", errors="replace").split()
        if not line:
            raise ValueError("the header is cut off: it has no line DATA")
        if not line.startswith(b"#") and words[:1] not in ([], *([name] for name in _NAMES)):
            shown = one_line(line[:40].decode("ascii", errors="replace"))
            raise ValueError(f"expected the header of a .pcd file, ending with a line DATA, got {shown!r}")
        if words and not line.startswith(b"#"):
            found[words[0]] = words[1:]
    names = found.get("FIELDS") or []
    counts = found.get("COUNT") or ["1"] * len(names)
    size, kind, data = found.get("SIZE") or [], found.get("TYPE") or [], " ".join(found["DATA"]).lower()
    numbers = [*counts, *size, *(found.get("POINTS") or ["?"])]
    if not names or not len(names) == len(counts) == len(size) == len(kind):
        raise ValueError(f"the header names {len(names)} fields, {len(size)} sizes, {len(kind)} types")
    if not all(number.isdigit() and len(number) < 16 for number in numbers):
        raise ValueError(f"expected whole numbers for COUNT, SIZE and POINTS, got {one_line(' '.join(numbers), 60)}")
    if data not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(f"DATA {one_line(data, 40)}, expected ascii, binary or binary_compressed")
    if bad := [f"{k}{s}" for k, s in zip(kind, size, strict=True) if (k, s) not in _TYPES]:
        raise ValueError(f"a field has the type {one_line(bad[0], 20)}, expected F4, F8, or I or U with 1 to 8 bytes")
    if math.prod(max(int(count), 1) for count in counts) > limit("METADATA_BYTES"):
        raise ValueError("a field has too many values")
    unique = [name if names.index(name) == i else f"{name}_{i}" for i, name in enumerate(names)]
    types = [
        (name, f"<{KINDS[k]}{s}", (int(count),)) if int(count) != 1 else (name, f"<{KINDS[k]}{s}")
        for name, k, s, count in zip(unique, kind, size, counts, strict=True)
    ]
    return _Header(np.dtype(types), int(numbers[-1]), data)


_NAMES = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
_TYPES = {("F", "4"), ("F", "8"), *((kind, size) for kind in "IU" for size in "1248")}


def _text(file: BinaryIO, header: _Header) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a file without numbers
        try:
            rows = np.loadtxt(file, dtype=header.dtype, ndmin=1)
        except ValueError as e:
            names = " ".join(header.dtype.names or ())
            raise ValueError(f"expected lines of {names}: {one_line(str(e).split(';')[0])}") from e
    if len(rows) != header.points:
        raise ValueError(f"its header names {header.points} points, {len(rows)} follow")
    return {name: rows[name] for name in header.dtype.names or ()}


def _binary(file: BinaryIO, header: _Header) -> dict[str, np.ndarray]:
    rows = np.frombuffer(file.read(header.points * header.dtype.itemsize), header.dtype)
    return {name: rows[name] for name in header.dtype.names or ()}


def _compressed(file: BinaryIO, header: _Header) -> dict[str, np.ndarray]:
    """Fields one after the other, compressed with LZF."""
    packed, size = np.frombuffer(file.read(8).ljust(8, b"\0"), "<u4").tolist()
    if size != header.points * header.dtype.itemsize:
        raise ValueError(f"{header.points} points take {header.points * header.dtype.itemsize} bytes, it holds {size}")
    data = file.read(packed)
    if len(data) != packed:
        raise ValueError(f"the file is cut off: {packed} bytes of points expected, {len(data)} follow")
    plain = unpack_lzf(data, size)
    fields, start = {}, 0
    for name in header.dtype.names or ():
        kind = header.dtype[name]
        fields[name] = np.frombuffer(plain, kind.base, header.points * math.prod(kind.shape), start)
        fields[name] = fields[name].reshape(header.points, *kind.shape)
        start += header.points * kind.itemsize
    return fields


def unpack_lzf(data: bytes, size: int) -> bytes:
    """Bytes that LibLZF compressed: runs of up to 32 bytes as they are, and copies of up to 264 bytes from at most 8192
    bytes before.

    Args:
        size: of the result.

    Raises:
        ValueError: if the data are damaged or give another number of bytes.
    """
    out, at = bytearray(), 0
    try:
        while at < len(data) and len(out) <= size:
            control = data[at]
            at += 1
            if control < 32:
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            back = ((control & 31) << 8) + data[at] + 1
            at, length, start = at + 1, length + 2, len(out) - back
            if start < 0:
                raise IndexError
            if back >= length:
                out += out[start : start + length]
            else:  # it overlaps what it makes
                out += (out[start:] * (length // back + 1))[:length]
    except IndexError as e:
        raise ValueError("its compressed points are damaged") from e
    if len(out) != size or at != len(data):
        raise ValueError("its compressed points are damaged")
    return bytes(out)
