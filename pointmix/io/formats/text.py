"""Tables of numbers as text, a line a point: .xyz, .txt, .asc, .csv and .pts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from pointmix.io.names import join_vectors
from pointmix.io.registry import Columns, register_reader
from pointmix.utils.limits import check_limit, limit, regular_file
from pointmix.utils.messages import one_line

HEAD = 1 << 16  # characters that tell a table from other text
SUFFIXES = (".xyz", ".txt", ".asc", ".csv", ".pts")
COMMENTS = ("#", "//")
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
LEICA = {  # columns of a .pts file that begins with the number of points
    3: ("x", "y", "z"),
    4: ("x", "y", "z", "intensity"),
    6: ("x", "y", "z", "r", "g", "b"),
    7: ("x", "y", "z", "intensity", "r", "g", "b"),
}


class _Head(NamedTuple):
    """What the first lines say.

    Args:
        line: the first line of numbers.
        delimiter: between values; None: white space.
        names: of the columns, None if there is no header.
        points: number of points, None if it is not stated.
    """

    line: str
    delimiter: str | None
    names: list[str] | None
    points: int | None


@register_reader(*SUFFIXES)
def read_text(path: Path) -> Columns:
    """Columns by the names of a header, or the whole table as "data"; values are float64.

    White space, commas, semicolons or tabs are between the values; # and // begin a comment. The header is a line of
    words before the first numbers, or a comment there with x, y and z. A first line with a single number is the number
    of points.

    Raises:
        ValueError: if it is not such a table, or larger than the limit ARRAY_BYTES.
    """
    check_limit("ARRAY_BYTES", regular_file(path).stat().st_size, "the text")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        head = _head(file)
        table = _table(head, file)
    if head.points is not None and head.points != len(table):
        raise ValueError(f"its first line says {head.points} points, {len(table)} follow")
    columns, names = table.shape[1], head.names
    if names is None and head.points is not None and path.suffix.lower() == ".pts":
        names = list(LEICA.get(columns, ())) or None
    if names is None:
        if columns < 3:
            raise ValueError(f"its lines have {columns} value{'s' * (columns > 1)}, expected x, y, z and more")
        return {"data": table}
    if len(names) != columns:
        raise ValueError(f"its header names {len(names)} columns, its lines have {columns} values")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"its header names a column {min(twice)} twice")
    return join_vectors({name: table[:, i] for i, name in enumerate(names)}, "columns")


def is_table(path: Path) -> bool:
    """Whether a line near the beginning of a text file has three numbers or more, or the file is empty: so it is a
    cloud, not a note or a list of files."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line for line in file.read(HEAD).splitlines() if line.strip() and not line.startswith(COMMENTS)]
    marks = (None, ",", ";")
    rows = [[value.strip(" \"'") for value in line.split(mark)] for line in lines[:9] for mark in marks]
    return not lines or any(sum(map(_is_number, row)) >= 3 for row in rows)


def _head(file: TextIO) -> _Head:
    count, names, comment = None, None, ""
    for line in _lines(file):
        if line.startswith(COMMENTS):
            words = _split(line.lstrip("#/ "))
            comment = line if {"x", "y", "z"} <= {word.lower() for word in words} else comment
            continue
        values = _split(line)
        if count is None and names is None and len(values) == 1 and values[0].isdigit():
            count = int(values[0])
        elif any(_is_number(value) for value in values):
            if names is None and comment:
                names = _split(comment.lstrip("#/ "))
                names = names if len(names) == len(values) else None
            return _Head(line, _delimiter(line), names, count)
        elif names is None:
            names = values
        else:
            raise ValueError(f"expected numbers after the header, got {one_line(line, 40)!r}")
    raise ValueError("it has no point" if count is None else f"its first line says {count} points, 0 follow")


def _lines(file: TextIO) -> Iterator[str]:
    """Lines that are not empty; refused if one is longer than any line of a table."""
    longest = limit("METADATA_BYTES")
    while line := file.readline(longest):
        if "\0" in line or "\ufffd" in line and not line.startswith(COMMENTS) or len(line) == longest:
            raise ValueError("it is not text, expected a line of numbers a point")
        if line.strip():
            yield line.strip()


def _delimiter(line: str) -> str | None:
    words = line.split()
    if ";" in line:
        found: str | None = ";"
    elif "," in line and not (len(words) > 1 and all(DECIMAL_COMMA.fullmatch(word) for word in words)):
        found = ","
    else:
        found = "\t" if "\t\t" in line else None
    values = line.split(found)
    if found != "," and any(DECIMAL_COMMA.fullmatch(value.strip()) for value in values):
        raise ValueError(f"its numbers have decimal commas, expected points: {one_line(line, 40)!r}")
    return found


def _split(line: str) -> list[str]:
    """The values or names in a line."""
    delimiter = next((mark for mark in ";,\t" if mark in line), None)
    return [value.strip().strip("\"'").strip() for value in line.strip().split(delimiter)]


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _table(head: _Head, file: TextIO) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rows = chain([head.line], (line for line in file if not line.startswith("//")))
            return np.loadtxt(rows, delimiter=head.delimiter, comments="#", quotechar='"', ndmin=2)
        except ValueError as e:
            raise ValueError(_why(str(e))) from e


def _why(message: str) -> str:
    """NumPy's reason in our words."""
    if found := re.search(r"could not convert string (.*) to float64 at row (\d+), column (\d+)", message):
        what = "an empty value" if found[1] in ("''", '""') else f"{one_line(found[1], 40)}, which is not a number"
        return f"point {found[2]} has {what}, in column {found[3]}"
    if found := re.search(r"columns changed from (\d+) to (\d+) at row (\d+)", message):
        return f"point {int(found[3]) - 1} has {found[2]} values, the points before {found[1]}"
    return message
