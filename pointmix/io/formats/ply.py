"""PLY: vertices with x, y, z, and colors and normals under their usual names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pointmix.io.registry import FEATURES, POSITIONS, Columns, register_reader, require
from pointmix.utils.limits import limit, regular_file

COLUMNS = {  # column -> names of its properties; the first complete spelling counts
    "xyz": (("x", "y", "z"),),
    "colors": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")),
}
RESERVED = {*POSITIONS, *(name for group in FEATURES for name in group)}


@register_reader(".ply")
def read_ply(path: Path) -> Columns:
    """The vertices of a .ply file: xyz, colors and normals, and each other property under its own name."""
    plyfile = require("plyfile", path)
    check_ply(path)
    ply = plyfile.PlyData.read(str(path))
    if "vertex" not in ply:
        raise ValueError(f"expected an element 'vertex', found {[e.name for e in ply.elements]}")
    vertex = ply["vertex"].data
    properties = {name.lower(): name for name in vertex.dtype.names}
    if not {"x", "y", "z"} <= set(properties):
        raise ValueError(f"expected vertices with x, y and z, found {', '.join(properties.values())}")
    columns: dict[str, np.ndarray] = {}
    for column, spellings in COLUMNS.items():
        names = next((names for names in spellings if set(names) <= set(properties)), None)
        if names is not None:
            columns[column] = np.stack([vertex[properties.pop(name)] for name in names], axis=1)
    # no single property is positions, colors or normals, whatever its name
    columns |= {f"property {name}" if name in RESERVED else name: vertex[name] for name in properties.values()}
    return columns | {f"element {e.name}": e.data for e in ply.elements if e.name != "vertex"}


def check_ply(path: str | Path) -> None:
    """Refuse a .ply file whose header names more values than the file has bytes for.

    Raises:
        ValueError: if it does, or has no PLY header.
    """
    path = regular_file(path)
    rows, values = 0, 0  # of the current element; of all elements
    with open(path, "rb") as file:
        head = file.read(limit("METADATA_BYTES"))
    lines = re.finditer(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)", head)
    if next(lines)[1].strip() != b"ply":
        raise ValueError("not a .ply file: it should begin with the line 'ply'")
    for line in lines:
        words = line[1].split()
        if words[:1] == [b"end_header"]:
            break
        if words[:1] == [b"element"]:
            rows = int(words[2]) if len(words) == 3 and words[2].isdigit() and len(words[2]) < 19 else -1
            if rows < 0:
                raise ValueError("an element in the header has no number of rows")
        values += rows * (words[:1] == [b"property"])
    else:
        raise ValueError("the header is cut off: it has no line 'end_header'")
    left = path.stat().st_size - line.end()
    if values > left:  # each value takes a byte or more
        raise ValueError(f"the file is cut off: its header names {values} values, {left} bytes follow")
