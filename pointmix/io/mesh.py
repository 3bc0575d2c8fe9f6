"""Points on the surface of a triangle mesh."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Int, Shaped

FACES = "mesh faces"  # name of the column of a reader with the triangles of a mesh, (F, 3) vertices
SURFACE_POINTS = 10_000  # of a mesh, by default


def on_surface(
    pos: Float[np.ndarray, "N 3"],
    faces: Int[np.ndarray, "F 3"],
    features: Mapping[str, Shaped[np.ndarray, "N ..."]],
    label: Shaped[np.ndarray, "..."] | None,
    count: int,
) -> tuple[Float[np.ndarray, "M 3"], dict[str, Shaped[np.ndarray, "M ..."]], Shaped[np.ndarray, "..."] | None]:
    """Random points of a surface, each part of it as likely as its area; the same for the same mesh, wherever whole
    numbers have moved it.

    Features are interpolated between the vertices of a triangle, those of integers rounded, normals to unit length;
    labels are the nearest vertex's. The feature normal is the normal of the triangle where the vertices have none, or
    those of its vertices cancel out.

    Args:
        pos, features, label: of the vertices.
        faces: vertices of each triangle.
        count: number of points.

    Raises:
        ValueError: if a face names a vertex that is not there or not finite, or the surface has no area.
    """
    if pos.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "ui" or not len(faces):
        raise ValueError(f"vertices {pos.shape} and faces {faces.shape}, expected (N, 3) and (F, 3) integers, F > 0")
    bad = ((faces < 0) | (faces >= len(pos))).any(1)
    if bad.any():
        face = int(bad.argmax())
        raise ValueError(f"face {face} names vertices {faces[face].tolist()}, the mesh has {len(pos)}")
    corners = pos[faces]  # (F, 3, 3)
    if lost := int((~np.isfinite(corners)).any((1, 2)).sum()):
        raise ValueError(f"{lost} of {len(faces)} faces have vertices that are NaN or infinite")
    local = corners - corners.min((0, 1)).astype(np.float64)  # exact for map coordinates in float64
    a, b, c = local.transpose(1, 0, 2)
    across = np.cross(b - a, c - a)  # (F, 3), normals times twice the area
    area = np.linalg.norm(across, axis=1)
    if not 0 < area.sum() < np.inf:
        raise ValueError(f"its {len(faces)} faces have no area, expected a surface to take points from")
    rng = np.random.default_rng([zlib.crc32(array.tobytes()) for array in (local, faces)])
    ends = area.cumsum()
    chosen = np.searchsorted(ends, rng.random(count) * ends[-1], side="right").clip(0, len(faces) - 1)
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    weight = np.stack([1 - u - v, u, v], axis=1)  # (M, 3)
    corner = faces[chosen]  # (M, 3)
    away = u[:, None] * (b - a)[chosen] + v[:, None] * (c - a)[chosen]
    step = 2.0 ** (np.floor(np.log2(local.max())) - 24)  # as fine as float32: the sum is exact on a map too
    points = corners[chosen, 0] + np.rint(away / step) * step

    def between(value: np.ndarray) -> np.ndarray:
        rows = value.reshape(len(pos), -1)[corner]  # (M, 3, C)
        mixed = (rows * weight[..., None]).sum(1).reshape(count, *value.shape[1:])
        return (mixed if value.dtype.kind == "f" else np.rint(mixed)).astype(value.dtype)

    mixed = {name: between(value) for name, value in features.items() if name != "normal"}
    flat = across[chosen] / area[chosen, None]  # (M, 3)
    mixed["normal"] = _unit(between(features["normal"].astype(np.float32)), flat) if "normal" in features else flat
    mixed["normal"] = mixed["normal"].astype(np.float32)
    if label is not None and label.ndim:
        label = label[corner[np.arange(count), weight.argmax(1)]]
    return points.astype(pos.dtype), mixed, label


def _unit(vectors: Float[np.ndarray, "M 3"], instead: Float[np.ndarray, "M 3"]) -> Float[np.ndarray, "M 3"]:
    """Vectors of length 1 in the same directions; others instead of those of no length."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    short = length <= 1e-6  # rounding leaves some
    return np.where(short, instead, vectors / np.where(short, 1, length))


def triangles(polygons: Iterable[Int[np.ndarray, "_"]]) -> Int[np.ndarray, "F 3"]:
    """Polygons, each a list of vertices, as fans of triangles; of fewer than three vertices nothing is left."""
    lists = [np.asarray(polygon, dtype=np.int64) for polygon in polygons]
    sizes = np.array([len(polygon) for polygon in lists])
    fans = [np.zeros((0, 3), np.int64)]
    for size in np.unique(sizes[sizes > 2]) if lists else ():
        same = np.stack([polygon for polygon in lists if len(polygon) == size])
        fans += [same[:, [0, i, i + 1]] for i in range(1, int(size) - 1)]
    return np.concatenate(fans)
