"""Verification of downloaded cloud files, for `datasets/*/prepare.py`."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from pointmix.data.clouds.hdf5 import CloudFiles
from pointmix.data.clouds.points import finite_positions
from pointmix.data.paths import is_junk
from pointmix.io.errors import UnreadableSample
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line


def verify_clouds(files: CloudFiles, *, count: int, points: int) -> Iterator[str]:
    """Read every cloud; yield a line with the SHA-256 of each file and one with the number of clouds of each class.

    Args:
        count, points: expected number of clouds, and of points in each.

    Raises:
        ValueError: if a number differs, a cloud cannot be read or holds NaN, or a class has no cloud.
    """
    where = ", ".join(files.paths)
    if (len(files), files.points) != (count, points):
        raise ValueError(f"{where}: {len(files)} clouds of {files.points} points, expected {count} of {points}")
    for index in range(len(files)):
        try:
            finite_positions(files.read(index))
        except UnreadableSample as error:
            raise ValueError(f"{files.name(index)}: {error}") from error
    counts = np.bincount(files.targets, minlength=len(files.classes)).tolist()
    empty = [name for name, number in zip(files.classes, counts, strict=True) if not number]
    if empty:
        raise ValueError(f"{where}: no cloud of class {', '.join(empty)}")
    for path in files.paths:
        yield f"{path}: sha256 {sha256(path)}"
    yield f"  {count} clouds: " + ", ".join(f"{n} {name}" for name, n in zip(files.classes, counts, strict=True))


def sha256(path: str | Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extract(archive: Path, root: Path, wanted: dict[str, str]) -> None:
    """Write members of a zip file below ROOT.

    Args:
        wanted: end of a member's path -> path below ROOT. Other members, and files that exist already, are skipped.

    Raises:
        FileNotFoundError, ValueError: if there is no such archive, it is damaged, or it has no wanted member.
    """
    regular_file(archive)
    try:
        with zipfile.ZipFile(archive) as zipped:
            found = [
                (name, root / target)
                for name in zipped.namelist()
                for end, target in wanted.items()
                if PurePosixPath(name).match(end) and not is_junk(name)
            ]
            if not found:
                raise ValueError(f"{archive} holds none of {', '.join(wanted)}")
            root.mkdir(parents=True, exist_ok=True)
            asked = sum(zipped.getinfo(name).file_size for name, path in found if not path.exists())
            if asked > (left := shutil.disk_usage(root).free):  # zipfile writes at most the declared size of a member
                raise ValueError(f"{archive} unpacks to {asked} bytes, {left} are free in {root}")
            for name, path in found:
                if path.exists():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_name(f".{path.name}.part")
                with zipped.open(name) as member, open(beside, "wb") as file:
                    shutil.copyfileobj(member, file, 1 << 20)  # also verifies the archive's checksum
                beside.replace(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # or it is encrypted
        raise ValueError(f"{archive} is not a complete zip file: {one_line(error)}") from error
