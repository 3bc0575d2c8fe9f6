"""Names of files and folders that are no data, and lists of names in text files."""

from __future__ import annotations

from pathlib import Path, PurePath

from pointmix.utils.limits import check_limit, regular_file

# what file managers, editors and network disks leave behind, besides all that begins with a dot
LITTER = {"__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}


def is_litter(path: str | PurePath) -> bool:
    """Whether a file or folder, or one of those around it in this relative path, is no data: it is hidden, or one of
    `LITTER`."""
    parts = str(path).replace("\\", "/").split("/")
    return any(part.lower() in LITTER or (part.startswith(".") and part not in (".", "..")) for part in parts)


def read_names(path: str | Path) -> list[str]:
    """The lines of a text file, without a byte-order mark, the spaces around each, and empty lines at its end.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is too large, no text in UTF-8 (or UTF-16 with its mark), or an empty line stands between
            others.
    """
    path = regular_file(path)
    check_limit("METADATA_BYTES", path.stat().st_size, f"the list {path}")
    content = path.read_bytes()
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        lines = [line.strip() for line in content.decode("utf-16" if marked else "utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    if "" in lines:
        raise ValueError(f"{path}: line {lines.index('') + 1} is empty, expected a name in each line")
    return lines
