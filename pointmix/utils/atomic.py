"""Atomic file writing: to a temporary file, fsynced and renamed, so that after a kill or on a full disk the previous
file is intact."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def check_place(path: str | Path) -> None:
    """Check that a file can be written at a path, before there is anything to write.

    Raises:
        OSError: if it is a folder, lies below a file, or in a folder without permission.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, expected the name of a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {above} is a file, expected a folder")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in {above}")


@contextmanager
def replacing(path: str | Path, *, named: Callable[[], str] | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; on success it replaces `path`, on failure `path` is unchanged.

    Args:
        named: called after writing for another file name than `path`'s.

    Raises:
        OSError: if writing failed; the message says whether there is a previous file.
    """
    check_place(path)
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # other processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path if named is None else path.with_name(named()))
    except (OSError, RuntimeError) as e:
        cause: BaseException = e
        while not isinstance(cause, OSError) and cause.__context__ is not None:
            cause = cause.__context__  # torch.save wraps a failed write in its own error
        reason = getattr(cause, "strerror", None) or str(cause)
        whole = "; the previous file is whole" if path.exists() else ""
        raise OSError(f"cannot write {path}: {reason.splitlines()[0]}{whole}") from e
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename must reach the disk, too
    finally:
        os.close(folder)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())
