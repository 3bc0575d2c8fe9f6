"""A complete look at files of clouds: what `datasets/*/prepare.py` says about them."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from pointmix.data.clouds.hdf5 import CloudFiles, UnreadableCloud
from pointmix.data.names import is_litter
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line


def verify_clouds(files: CloudFiles, *, count: int, points: int) -> Iterator[str]:
    """Read every cloud; give a line with the SHA-256 sum of each file and one with the clouds of each class.

    Args:
        count, points: clouds that there must be, and points of each.
    Raises:
        ValueError: if there are more or fewer, a cloud cannot be read or holds NaN, or a class has none.
    """
    where = ", ".join(files.paths)
    if (len(files), files.points) != (count, points):
        raise ValueError(f"{where}: {len(files)} clouds of {files.points} points, expected {count} of {points}")
    for index in range(len(files)):
        try:
            files.read(index)
        except UnreadableCloud as error:
            raise ValueError(f"{files.name(index)}: {error}") from error
    counts = np.bincount(files.targets, minlength=len(files.classes)).tolist()
    empty = [name for name, number in zip(files.classes, counts, strict=True) if not number]
    if empty:
        raise ValueError(f"{where}: no cloud of class {', '.join(empty)}")
    for path in files.paths:
        yield f"{path}: sha256 {sha256(path)}"
    yield f"  {count} clouds: " + ", ".join(f"{n} {name}" for name, n in zip(files.classes, counts, strict=True))


def sha256(path: str | Path) -> str:
    """The SHA-256 sum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extract(archive: Path, root: Path, wanted: dict[str, str]) -> None:
    """Write members of a zip file below ROOT.

    Args:
        wanted: end of a member's path -> path below ROOT. Others, and what is there already, are left alone.
    Raises:
        FileNotFoundError, ValueError: if there is no such archive, it is damaged, or none of these is in it.
    """
    regular_file(archive)
    try:
        with zipfile.ZipFile(archive) as zipped:
            found = [
                (name, root / target)
                for name in zipped.namelist()
                for end, target in wanted.items()
                if PurePosixPath(name).match(end) and not is_litter(name)
            ]
            if not found:
                raise ValueError(f"{archive} holds none of {', '.join(wanted)}")
            root.mkdir(parents=True, exist_ok=True)
            asked = sum(zipped.getinfo(name).file_size for name, path in found if not path.exists())
            if asked > (left := shutil.disk_usage(root).free):  # zipfile writes no more of a member than it declares
                raise ValueError(f"{archive} unpacks to {asked} bytes, {left} are free in {root}")
            for name, path in found:
                if path.exists():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f".{path.name}.part")
                with zipped.open(name) as member, open(beside, "wb") as file:
                    shutil.copyfileobj(member, file, 1 << 20)  # checks the sum in the archive, too
                beside.replace(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # or encrypted
        raise ValueError(f"{archive} is no whole zip file: {one_line(error)}") from error
