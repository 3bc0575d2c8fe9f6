"""The files that pointmix predict reads, and its table as a file."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from pointmix.data.paths import files_below, is_junk
from pointmix.io.columns import is_cloud
from pointmix.io.image_files import is_image
from pointmix.io.registry import CLOUD_READERS, IMAGE_READERS
from pointmix.tasks.protocols import Row
from pointmix.utils.atomic import write_text


def input_files(
    paths: Sequence[str], out: str | None, *, kind: Literal["image", "cloud"] | None = None
) -> tuple[list[str], list[str]]:
    """Files, each once: in place of a folder the images and clouds below it, in the order of their names, and in place
    of a pattern such as "scans/**/*.ply" what it matches.

    Args:
        out: file or folder of the outputs; what is below it is no input.
        kind: of the files that are taken from folders; None: both.

    Returns:
        The files, and the images and clouds of folders that are left out because they are of the other kind.

    Raises:
        ValueError: a folder has no such file.
    """
    found: dict[str, None] = {}
    left_out: dict[str, None] = {}
    for path in paths:
        is_pattern = has_magic(path) and not Path(path).exists()
        matches = (_matching(path) if is_pattern else []) or [path]  # reading it will say that there is no such file
        for match in matches:
            if not Path(match).is_dir():
                found[match] = None
                continue
            inside = _readable(Path(match), out)
            taken = [file for file in inside if kind is None or is_image(file) == (kind == "image")]
            if not taken and len(matches) == 1:
                readers = {"image": [*IMAGE_READERS], "cloud": [*CLOUD_READERS], None: [*IMAGE_READERS, *CLOUD_READERS]}
                what = f"no {kind or 'image or cloud'} below the folder {match}"
                raise ValueError(f"{what}, expected files ending in {', '.join(readers[kind])}")
            found |= dict.fromkeys(taken)
            left_out |= dict.fromkeys(inside)
    return list(found), [file for file in left_out if file not in found]


def _matching(pattern: str) -> list[str]:
    """What a pattern matches, sorted, no junk; ** stands for any folders."""
    parts = Path(pattern).parts
    fixed = Path(*itertools.takewhile(lambda part: not has_magic(part), parts))  # may be hidden
    if "**" not in parts:
        return sorted(match for match in glob(pattern) if not is_junk(Path(match).relative_to(fixed)))
    place = parts.index("**")
    folders, end = sorted(glob(str(Path(*parts[:place])))), parts[place + 1 :]
    if not end:
        return folders
    below = (file for folder in folders for file in files_below(Path(folder)))  # glob would follow circles of links
    return [str(file) for file in below if file.match(str(Path(*end)))]


def _readable(folder: Path, out: str | None) -> list[str]:
    """The images and clouds below a folder, but not below `out` inside it."""
    output = Path(out).resolve() if out is not None else None
    if output is None or folder.resolve() not in output.parents:
        output = None
    files = (file for file in files_below(folder) if is_image(file) or is_cloud(file))
    return [str(file) for file in files if output is None or output not in file.resolve().parents]


def write_table(
    path: str, columns: Sequence[str], rows: Mapping[str, Sequence[Row]], failures: Mapping[str, str]
) -> None:
    """Write predictions as CSV, a line a row with its file first, or as JSON: for each file {"file", "predictions"}, or
    {"file", "error"}.

    Args:
        path: ends in .csv or .json.
        columns: names of what a row holds.
        rows: of each file.
        failures: why a file has none; in JSON only.

    Raises:
        OSError: it cannot be written.
    """
    if path.lower().endswith(".json"):
        entries: list[dict[str, object]] = [
            {"file": file, "predictions": [dict(zip(columns, row, strict=True)) for row in found]}
            for file, found in rows.items()
        ]
        entries += [{"file": file, "error": why} for file, why in failures.items()]
        write_text(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *columns])
    writer.writerows([file, *row] for file, found in rows.items() for row in found)
    write_text(path, text.getvalue())
