"""HDF5 files, refused if any of their data lie in other files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pointmix.io.registry import register_reader, require
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

if TYPE_CHECKING:
    import h5py


@register_reader(".h5", ".hdf5", many=True)
def read_hdf5(path: Path) -> h5py.File:
    """The arrays at the top level of an HDF5 file, by name."""
    require("h5py", path)
    return open_hdf5(path)


def open_hdf5(path: str | Path) -> h5py.File:
    """Open an HDF5 file for reading, without a lock (network file systems may have none), or with the lock setting with
    which this process already has it open.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a complete HDF5 file, is being written, or names other files that hold some of its
            data.
    """
    path = regular_file(path)
    file = _opened(path, [False, None, True])
    try:
        _check_own(file)
    except Exception as e:
        file.close()
        raise ValueError(f"{path} {e}" if isinstance(e, ValueError) else f"{path} {_why(e)}") from e
    return file


def _opened(path: Path, lockings: list[bool | None]) -> h5py.File:
    import h5py

    try:
        return h5py.File(path, "r", locking=lockings[0])
    except OSError as e:
        if "flag values don't match" in str(e) and lockings[1:]:  # this process has it open with another setting
            return _opened(path, lockings[1:])
        raise ValueError(f"{path} {_why(e)}") from e


def _why(error: Exception) -> str:
    if "already open for write" in str(error):
        return "is being written, or a program that wrote it was killed (h5clear -s makes it readable again)"
    if isinstance(error, BlockingIOError):
        return "is open for writing in another process"
    return f"is not a complete HDF5 file: {one_line(error)}"


def _check_own(file: h5py.File) -> None:
    """Refuse links to other files, and arrays stored in other files: a file may name any path."""
    import h5py

    def check_link(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"links {name} to another file, {link.filename}; expected all data in the file itself")

    def check_array_of(name: str, found: object) -> None:
        if not isinstance(found, h5py.Dataset):
            return
        others = [place[0] for place in found.external or []]
        if found.is_virtual:
            others += [source.file_name for source in found.virtual_sources() if source.file_name != "."]
        if others:
            raise ValueError(f"keeps {name} in another file, {others[0]}; expected all data in the file itself")

    file.visititems_links(check_link)  # does not follow links to other files
    file.visititems(check_array_of)
