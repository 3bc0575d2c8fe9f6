"""Meshes in .off, .obj and .stl files, read by trimesh; materials and textures are left alone."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path

import numpy as np

from pointmix.io.mesh import FACES
from pointmix.io.registry import Columns, register_reader, require
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line


@register_reader(".off", ".obj", ".stl")
def read_mesh(path: Path) -> Columns:
    """Vertices as pos (float64), their colors if there are any, and triangles.

    Raises:
        ModuleNotFoundError: if trimesh is not installed.
        ValueError: if it is not such a mesh, has no faces, or is larger than the limit ARRAY_BYTES.
    """
    trimesh = require("trimesh", path)
    check_limit("ARRAY_BYTES", regular_file(path).stat().st_size, "the mesh")
    kind, content = path.suffix.lower()[1:], path.read_bytes()
    {"off": _check_off, "stl": _check_stl, "obj": _check_obj}[kind](content)
    log = logging.getLogger("trimesh")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what is wrong with a file is in the error
    try:
        # from memory, so that no other file that it names is opened
        mesh = trimesh.load_mesh(BytesIO(content), file_type=kind, process=False, skip_materials=True)
        pos, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception as e:  # also for libraries that it looks for when text is damaged
        raise ValueError(f"it is damaged: {one_line(e)}") from e
    finally:
        log.setLevel(level)
    if not len(faces):
        raise ValueError("it has no faces, expected a mesh")
    columns: dict[str, object] = {"pos": pos, FACES: faces}
    if mesh.visual.kind == "vertex":
        columns["colors"] = np.asarray(mesh.visual.vertex_colors)[:, :3]
    return columns


def _check_off(content: bytes) -> None:
    lines = (line.split(b"#")[0].split() for line in content[: 1 << 16].splitlines())
    words = [word for line in lines for word in line][:4]
    if not words or b"OFF" not in words[0]:
        raise ValueError("it does not begin with OFF")
    counts = [word for word in (words[0].split(b"OFF")[1], *words[1:]) if word][:2]
    if len(counts) < 2 or not all(count.isdigit() and len(count) < 16 for count in counts):
        raise ValueError("expected the numbers of vertices and faces after OFF")
    needed = 6 * int(counts[0]) + 2 * int(counts[1])  # a value takes two bytes or more
    if needed > len(content):
        vertices, faces = int(counts[0]), int(counts[1])
        raise ValueError(f"it is cut off: {vertices} vertices and {faces} faces in {len(content)} bytes")


def _check_stl(content: bytes) -> None:
    faces = int.from_bytes(content[80:84], "little")
    if len(content) == 84 + 50 * faces:
        return
    if not content.lstrip().startswith(b"solid") or b"facet" not in content[:4096]:
        raise ValueError(f"it is neither text that begins with solid, nor {faces} faces of 50 bytes after 84 bytes")
    if b"endsolid" not in content[-4096:]:
        raise ValueError("it is cut off: it has no line endsolid")


def _check_obj(content: bytes) -> None:
    if b"\0" in content:
        raise ValueError("it is not text")
