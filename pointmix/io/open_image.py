"""Files of arrays and images, opened so that no content of theirs costs more than `pointmix.utils.limits` allows.

Whatever the package reads goes through these openers. They raise ValueError or OSError, or what the library of the
format raises on damaged bytes; the caller names the file.
"""

from __future__ import annotations

import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pointmix.utils.limits import check_array, check_limit, limit, regular_file

if TYPE_CHECKING:
    import h5py

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # the decoders that a file may choose
_PILLOWS_LIMIT = threading.Lock()


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """An image, not decoded yet, whose header asks for no more than the limit IMAGE_PIXELS.

    Raises:
        FileNotFoundError: if there is no such file.
        UnidentifiedImageError: an OSError, if it is of none of the `FORMATS`.
        ValueError: if it is no regular file, or too large.
    """
    if isinstance(file, str | Path):
        file = regular_file(file, "image file")
    with _PILLOWS_LIMIT:
        pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # it would warn, or refuse what is allowed here
        try:
            image = Image.open(file, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = pillows
    try:
        check_limit("IMAGE_PIXELS", image.width * image.height, f"the image of {image.width} x {image.height}")
    except ValueError:
        image.close()
        raise
    return image


def read_npy(path: str | Path) -> np.ndarray:
    """The array in a .npy file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npy file of numbers, is cut off, or larger than the limit ARRAY_BYTES.
    """
    path = regular_file(path)
    with open(path, "rb") as file:
        return _read_array(file, left=path.stat().st_size, what="the array")


def _read_array(file: IO[bytes], *, left: int, what: str) -> np.ndarray:
    start = file.tell()
    shape, dtype = _header(file)
    asked = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape, default=0) < 0 or asked > left:
        raise ValueError(f"{what} is cut off: it should have shape {shape} of {dtype}")
    check_array(shape, dtype.itemsize, what)
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version, start = np.lib.format.read_magic(file), file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    check_limit("METADATA_BYTES", length, "the header")  # NumPy reads it all before it complains
    file.seek(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("holds Python objects, expected numbers")
    return shape, dtype


class _Members(Mapping):
    """The arrays of a .npz file by name; each is read when it is asked for, once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self._read: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._read:
            info = self._names[name]
            with self._archive.open(info) as member:
                self._read[name] = _read_array(member, left=info.file_size, what=name)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def open_npz(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a .npz file, read one by one; sizes are those of their headers, checked before anything is
    decompressed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no whole archive; or, where an array is asked for, as `read_npy`.
    """
    try:
        archive = zipfile.ZipFile(regular_file(path))
    except zipfile.BadZipFile as e:
        raise ValueError("not a whole .npz archive") from e
    with archive:
        yield _Members(archive)


def check_ply(path: str | Path) -> None:
    """Refuse a .ply file whose header names more values than the file has bytes for.

    Raises:
        ValueError: if it does, or has no header of a .ply file.
    """
    path = regular_file(path)
    rows, values = 0, 0  # of the element that is being described; of all elements
    with open(path, "rb") as file:
        head = file.read(limit("METADATA_BYTES"))
    lines = re.finditer(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)", head)
    if next(lines)[1].strip() != b"ply":
        raise ValueError("no .ply file: it should begin with the line 'ply'")
    for line in lines:
        words = line[1].split()
        if words[:1] == [b"end_header"]:
            break
        if words[:1] == [b"element"]:
            rows = int(words[2]) if len(words) == 3 and words[2].isdigit() and len(words[2]) < 19 else -1
            if rows < 0:
                raise ValueError("an element in the header has no number of rows")
        values += rows * (words[:1] == [b"property"])
    else:
        raise ValueError("the header is cut off: it has no line 'end_header'")
    left = path.stat().st_size - line.end()
    if values > left:  # each value takes a byte or more
        raise ValueError(f"the file is cut off: its header names {values} values, {left} bytes follow")


def check_numbers(name: str, found: Any) -> Any:
    """What an HDF5 file or an archive has under this name, if it is an array of numbers.

    Raises:
        ValueError: if it is a group, or an array of anything else.
    """
    if not hasattr(found, "dtype"):
        raise ValueError(f"{name} is a {type(found).__name__.lower()}, expected an array")
    if found.dtype.kind not in "uifbc":  # text and objects have no size of their own
        raise ValueError(f"{name} are {found.dtype}, expected numbers")
    return found


def check_read(array: h5py.Dataset | np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Refuse to read a part of this shape, or a chunk of the file, of more bytes than the limit ARRAY_BYTES.

    Raises:
        TooLarge: naming the limit.
    """
    check_array(shape, array.dtype.itemsize, name)
    check_array(getattr(array, "chunks", None) or (), array.dtype.itemsize, f"a chunk of {name}")
