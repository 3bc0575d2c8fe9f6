"""One run in a folder at a time: a lock that the system releases when its process ends, in any way."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
_held: set[Path] = set()  # by this process; a record lock does not exclude its own process
_changing = threading.Lock()  # guards _held


class RunLock:
    """The lock on a run folder, whose file holds the process id."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self.folder, self.file = folder, file

    def check(self) -> None:
        """Check that the folder is still the one that was locked.

        Raises:
            OSError: it was removed, moved or replaced.
        """
        if not _is_file_at(self.folder / LOCK, self.file):
            raise OSError(f"the run folder {self.folder} was removed or replaced while the run wrote to it")


@contextmanager
def lock(folder: Path) -> Iterator[RunLock]:
    """Hold the lock of a run folder, which is created if needed, and removed again if nothing was written to it.

    Raises:
        OSError: another process holds it, or it is no folder; one line that names the folder and the process.
    """
    for above in (folder, *folder.parents):
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(f"the run folder is {folder}, but {above} is a file; give another --output_dir")
    path, new = (folder / LOCK).resolve(), not folder.exists()
    with _changing:
        if path in _held:
            raise OSError(_refusal(folder, os.getpid()))
        file = _locked(folder, path)
        _held.add(path)
    try:
        yield RunLock(folder, file)
    finally:
        if new and [path.name for path in folder.glob("*")] == [LOCK] and _is_file_at(path, file):
            path.unlink()
            with suppress(OSError):  # another run may have started in it
                folder.rmdir()
        _held.discard(path)
        file.close()  # releases the lock


def _locked(folder: Path, path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+b", buffering=0)
        try:
            # A record lock, not flock: forked data workers do not inherit it.
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                warnings.warn(f"{folder} cannot be locked on this system: start one run in it only", stacklevel=4)
        except (BlockingIOError, PermissionError) as e:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip()
            file.close()
            raise OSError(_refusal(folder, holder or "unknown")) from e
        except OSError as e:  # a file system without locks
            warnings.warn(f"{folder} cannot be locked ({e.strerror}): start one run in it only", stacklevel=4)
        if _is_file_at(path, file):  # else its last holder has removed it
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            return file
        file.close()


def _refusal(folder: Path, holder: int | str) -> str:
    return f"another run writes to {folder} (process {holder}); wait for its end, or give another --output_dir"


def _is_file_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
