"""PLY: vertices with x, y, z, and colors and normals under their usual names."""

from __future__ import annotations

import re
from pathlib import Path

from pointmix.io.mesh import FACES, triangles
from pointmix.io.names import join_vectors
from pointmix.io.registry import Columns, register_reader, require
from pointmix.utils.limits import limit, regular_file


@register_reader(".ply")
def read_ply(path: Path) -> Columns:
    """The vertices of a .ply file: xyz, colors and normals, each other property under its own name, and faces."""
    plyfile = require("plyfile", path)
    check_ply(path)
    ply = plyfile.PlyData.read(str(path))
    if "vertex" not in ply:
        raise ValueError(f"expected an element 'vertex', found {[e.name for e in ply.elements]}")
    vertex = ply["vertex"].data
    columns: dict[str, object] = {**join_vectors({name: vertex[name] for name in vertex.dtype.names}, "vertices with")}
    for element in ply.elements:
        lists = [name for name in ("vertex_indices", "vertex_index") if name in (element.data.dtype.names or ())]
        if element.name == "face" and lists:
            columns |= {FACES: triangles(element.data[lists[0]])} if len(element.data) else {}
        elif element.name != "vertex":
            columns[f"element {element.name}"] = element.data
    return columns


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
