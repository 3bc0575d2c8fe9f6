"""Files below data folders without hidden and system files, and lists of names in text files."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from pointmix.utils.limits import check_limit, regular_file

# left behind by file managers, editors and network file systems
JUNK = {"__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}


def is_junk(path: str | PurePath) -> bool:
    """Whether any part of a relative path is hidden (begins with a dot) or one of `JUNK`, ignoring case."""
    parts = str(path).replace("\\", "/").split("/")
    return any(part.lower() in JUNK or (part.startswith(".") and part not in (".", "..")) for part in parts)


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, sorted, no junk. Links to folders are followed, to each folder once."""
    found: list[Path] = []
    seen: set[str] = set()  # a link may lead back to a folder that it is in
    for place, subfolders, names in os.walk(folder, followlinks=True):
        known = (real := os.path.realpath(place)) in seen
        seen.add(real)
        subfolders[:] = [] if known else sorted(name for name in subfolders if not is_junk(name))
        found += (
            [] if known else [path for name in names if not is_junk(name) and (path := Path(place, name)).is_file()]
        )
    return sorted(found)


def read_lines(path: str | Path) -> list[str]:
    """The stripped lines of a text file, without a byte-order mark and empty lines at the end.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is too large, is not text in UTF-8 (or UTF-16 with a byte-order mark), or has an empty line
            before the end.
    """
    path = regular_file(path)
    check_limit("METADATA_BYTES", path.stat().st_size, f"the list {path}")
    content = path.read_bytes()
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        lines = [line.strip() for line in content.decode("utf-16" if marked else "utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is empty, expected a name on each line")
    return lines


def existing(root: str | None, *needed: str) -> Path:
    """The folder `data.root`, checked to hold these files or folders.

    Raises:
        ValueError: if it is not set.
        FileNotFoundError: naming what is missing.
    """
    if not root:
        raise ValueError(f"data.root is not set; expected a folder with {', '.join(needed) or 'the data'}")
    folder = Path(root)
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(f"data.root {root}: no {', '.join(missing)}; expected {', '.join(needed)}")
    return folder
