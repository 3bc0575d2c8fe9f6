"""Readers of file formats by suffix.

A reader takes a path and returns what the file holds, by name:

    @register_reader(".abc")
    def read_abc(path: Path) -> Columns:
        table = np.loadtxt(path, ndmin=2)
        return {"xyz": table[:, :3], "normals": table[:, 3:6]}

`pointmix.io.read_cloud` and `read_columns` turn these columns into positions and features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from PIL import Image

# Name -> array: (N, D) positions, (N,) or (N, C) features; or (n, N, D) and so on for n clouds of N points. Only the
# columns that are used are looked up, so they may be loaded lazily. Any other value of a used column is refused.
Columns = Mapping[str, object]
CloudReader = Callable[[Path], Columns | AbstractContextManager[Columns]]
ImageReader = Callable[[Path], Image.Image]  # the image need not be decoded yet
AnyCloudReader = TypeVar("AnyCloudReader", bound=CloudReader)
AnyImageReader = TypeVar("AnyImageReader", bound=ImageReader)

CLOUD_READERS: dict[str, CloudReader] = {}
MANY_CLOUDS: set[str] = set()  # suffixes of files that may hold more than one cloud
IMAGE_READERS: dict[str, ImageReader] = {}


def register_reader(*suffixes: str, many: bool = False) -> Callable[[AnyCloudReader], AnyCloudReader]:
    """Decorator: read point clouds from files with these suffixes, such as ".ply", with this function.

    The function returns the columns, or a context manager that gives them and closes the file. It may raise anything
    on a damaged file; `read_cloud` names the file.

    Args:
        many: files may hold more than one cloud, so data sets open each of them to count its clouds; opening should
            then read no more than it must.

    Raises:
        ValueError: if a suffix has no leading dot or has a reader already.
    """

    def register(reader: AnyCloudReader) -> AnyCloudReader:
        CLOUD_READERS.update(dict.fromkeys(_unused(suffixes), reader))
        MANY_CLOUDS.update(suffix.lower() for suffix in suffixes if many)
        return reader

    return register


def register_image_reader(*suffixes: str) -> Callable[[AnyImageReader], AnyImageReader]:
    """Decorator: read images from files with these suffixes with this function, which returns a Pillow image.

    Raises:
        ValueError: if a suffix has no leading dot or has a reader already.
    """

    def register(reader: AnyImageReader) -> AnyImageReader:
        IMAGE_READERS.update(dict.fromkeys(_unused(suffixes), reader))
        return reader

    return register


def _unused(suffixes: tuple[str, ...]) -> list[str]:
    for suffix in suffixes:
        if not suffix.startswith("."):
            raise ValueError(f"a suffix begins with a dot, got {suffix!r}")
        if suffix.lower() in CLOUD_READERS or suffix.lower() in IMAGE_READERS:
            raise ValueError(f"{suffix.lower()} files have a reader already")
    return [suffix.lower() for suffix in suffixes]


def require(library: str, path: Path) -> ModuleType:
    """Import the library that a file format needs.

    Raises:
        ModuleNotFoundError: if it is not installed, with the command that installs it.
    """
    try:
        return import_module(library)
    except ImportError as e:
        message = f"{path}: this kind of file needs {library}: pip install {library}"
        raise ModuleNotFoundError(message, name=library) from e
