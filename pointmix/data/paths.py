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
    """The files in a folder and its subfolders, sorted, no junk. Links to folders are followed, to each folder once.
    Links to nowhere, pipes and devices are kept, so that reading them fails and names them."""
    found: list[Path] = []
    seen = {str(parent) for parent in Path(os.path.realpath(folder)).parents}  # a link may lead to a folder it is in
    for place, subfolders, names in os.walk(folder, followlinks=True):
        known = (real := os.path.realpath(place)) in seen
        seen.add(real)
        subfolders[:] = [] if known else sorted(name for name in subfolders if not is_junk(name))
        found += [] if known else [Path(place, name) for name in names if not is_junk(name)]
    return sorted(found)


def read_text(path: str | Path, what: str) -> str:
    """The content of a text file in UTF-8, or in UTF-16 with a byte-order mark; without the mark.

    Args:
        what: the file, in messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is too large or is not text.
    """
    path = regular_file(path)
    check_limit("METADATA_BYTES", path.stat().st_size, what)
    content = path.read_bytes()
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error


def read_lines(path: str | Path) -> list[str]:
    """The stripped lines of a text file, without empty lines at the end.

    Raises:
        FileNotFoundError, ValueError: as `read_text`, and if there is an empty line before the end.
    """
    lines = [line.strip() for line in read_text(path, f"the list {path}").rstrip().splitlines()]
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
