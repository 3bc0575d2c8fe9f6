"""Procedural clouds of twelve kinds of objects, to try everything without a download.

Surfaces are sampled evenly, scanned from one direction (the far side is missing, wholly or in part), stretched,
rotated, tilted and noisy, with background points: a floor and another box. They are stored in the format of
ScanObjectNN, y up.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5 import CloudFiles, check_points, file_options
from pointmix.data.clouds.source import register_source
from pointmix.data.clouds.sources.scanobjectnn import open_scanobjectnn
from pointmix.data.clouds.surfaces import Sizes, Surface, ball, box, choose, column, pyramid, tube, turned

VERSION = 2  # of the generated data: raise it whenever they change
COUNTS = {"training": 2000, "test": 500}
POINTS = 1024


def _zeros(n: int) -> Sizes:
    return np.zeros(n)


def _legs(rng: Generator, many: int, x: Sizes, z: Sizes, tall: Sizes) -> list[Surface]:
    thick = np.full(len(x), 0.06)
    corners = [(i, j) for i in (-1, 1) for j in (-1, 1)]
    half = [thick, tall / 2, thick]
    return [box(rng, many, half, [i * (x - thick), -tall / 2, j * (z - thick)]) for i, j in corners]


def _ball(rng: Generator, many: int, n: int) -> list[Surface]:
    return [ball(rng, many, np.ones(n))]


def _box(rng: Generator, many: int, n: int) -> list[Surface]:
    return [box(rng, many, list(rng.uniform(0.4, 1.0, (3, n))), [_zeros(n)] * 3)]


def _cylinder(rng: Generator, many: int, n: int) -> list[Surface]:
    radius, half = rng.uniform(0.3, 0.7, n), rng.uniform(0.5, 1.0, n)
    return [column(rng, many, radius, radius, -half, half)]


def _cone(rng: Generator, many: int, n: int) -> list[Surface]:
    return [column(rng, many, rng.uniform(0.5, 0.8, n), _zeros(n), _zeros(n), rng.uniform(1.0, 1.7, n))]


def _torus(rng: Generator, many: int, n: int) -> list[Surface]:
    return [tube(rng, many, np.ones(n), rng.uniform(0.2, 0.4, n), np.ones(n), _zeros(n))]


def _pyramid(rng: Generator, many: int, n: int) -> list[Surface]:
    return [pyramid(rng, many, rng.uniform(0.6, 0.9, n), rng.uniform(0.9, 1.5, n))]


def _table(rng: Generator, many: int, n: int) -> list[Surface]:
    x, z, tall = rng.uniform(0.7, 1.1, n), rng.uniform(0.5, 0.8, n), rng.uniform(0.7, 1.1, n)
    return [box(rng, many, [x, np.full(n, 0.05), z], [_zeros(n)] * 3), *_legs(rng, many, x, z, tall)]


def _chair(rng: Generator, many: int, n: int) -> list[Surface]:
    x, z, tall = rng.uniform(0.45, 0.6, n), rng.uniform(0.45, 0.6, n), rng.uniform(0.6, 0.9, n)
    thin, back = np.full(n, 0.05), rng.uniform(0.4, 0.6, n)
    seat = box(rng, many, [x, thin, z], [_zeros(n)] * 3)
    return [seat, box(rng, many, [x, back, thin], [_zeros(n), back, thin - z]), *_legs(rng, many, x, z, tall)]


def _stairs(rng: Generator, many: int, n: int) -> list[Surface]:
    wide, rise, deep = rng.uniform(0.4, 0.8, n), rng.uniform(0.1, 0.16, n), rng.uniform(0.16, 0.24, n)
    middles = [(i * rise, (2 * i - 5) * deep) for i in range(1, 5)]
    return [box(rng, many, [wide, up, deep], [_zeros(n), up, along]) for up, along in middles]


def _spring(rng: Generator, many: int, n: int) -> list[Surface]:
    turns = rng.uniform(2.5, 4.0, n)
    return [tube(rng, many, rng.uniform(0.45, 0.65, n), rng.uniform(0.08, 0.13, n), turns, 2 / turns)]


def _mug(rng: Generator, many: int, n: int) -> list[Surface]:
    radius, half = rng.uniform(0.5, 0.65, n), rng.uniform(0.6, 0.75, n)
    point, normal, area = tube(rng, many, 0.6 * half, np.full(n, 0.09), np.full(n, 0.5), _zeros(n))
    point, normal = (i[..., [2, 0, 1]] for i in (point, normal))  # stand the half ring up, bulging along x
    point[..., 0] += radius[:, None]
    return [column(rng, many, radius, radius, -half, half), (point, normal, area)]


def _lamp(rng: Generator, many: int, n: int) -> list[Surface]:
    foot, tall, shade = rng.uniform(0.3, 0.5, n), rng.uniform(1.2, 1.7, n), rng.uniform(0.4, 0.6, n)
    pole, thin = np.full(n, 0.06), np.full(n, 0.08)
    return [
        column(rng, many, foot, foot, _zeros(n), thin),
        column(rng, many, pole, pole, thin, tall),
        column(rng, many, shade, 0.5 * shade, tall, tall + 0.5),
    ]


OBJECTS: dict[str, Callable[[Generator, int, int], list[Surface]]] = {
    "ball": _ball, "box": _box, "cylinder": _cylinder, "cone": _cone, "torus": _torus, "pyramid": _pyramid,
    "table": _table, "chair": _chair, "stairs": _stairs, "spring": _spring, "mug": _mug, "lamp": _lamp,
}  # fmt: skip


def scan(
    rng: Generator, kind: str, n: int, *, points: int
) -> tuple[Float[np.ndarray, "n N 3"], Bool[np.ndarray, "n N"]]:
    """n scans of objects of one kind, centered and within the unit sphere, and which points are on the object.

    Points are in random order, so that the first few of them are a scan too.
    """
    many = 2 * points
    points_of, normals_of, areas = zip(*OBJECTS[kind](rng, many, n), strict=True)
    part = choose(rng, np.stack(areas, 1), many)  # (n, 2N)
    point, normal = (np.choose(part[..., None], of) for of in (points_of, normals_of))  # (n, 2N, 3)

    azimuth, height = rng.uniform(0, 2 * np.pi, n), np.deg2rad(rng.uniform(10, 50, n))
    view = np.stack([np.cos(height) * np.cos(azimuth), np.sin(height), np.cos(height) * np.sin(azimuth)], 1)
    facing = np.einsum("nmd,nd->nm", normal, view)
    visible = facing > -rng.uniform(0, 1, (n, 1))  # from the near half alone to nearly all around
    order = np.argsort(~visible, axis=1, kind="stable")
    order = np.take_along_axis(
        order, np.arange(points) % visible.sum(1, keepdims=True), 1
    )  # repeat if too few are visible
    point = np.take_along_axis(point, order[..., None], 1)  # (n, N, 3)

    point = point * rng.uniform(0.8, 1.25, (n, 1, 3))
    point = turned(point, rng.uniform(0, 2 * np.pi, (n, 1)))
    tilt, across = np.deg2rad(rng.uniform(0, 10, (n, 1))), rng.uniform(0, 2 * np.pi, (n, 1))
    point = turned(_tilted(turned(point, across), tilt), -across)

    background = np.arange(points) < rng.uniform(0, 0.15, (n, 1)) * points
    point = np.where(background[..., None], _surroundings(rng, point), point)
    point = point + rng.normal(0, 1, point.shape) * rng.uniform(0.005, 0.015, (n, 1, 1))
    point -= point.mean(1, keepdims=True)
    point /= np.linalg.norm(point, axis=2).max(1)[:, None, None]
    order = rng.permuted(np.broadcast_to(np.arange(points), (n, points)), axis=1)
    return np.take_along_axis(point, order[..., None], 1), ~np.take_along_axis(background, order, 1)


def _tilted(point: Float[np.ndarray, "n N 3"], angle: Float[np.ndarray, "n 1"]) -> Float[np.ndarray, "n N 3"]:
    """Rotated about z."""
    return turned(point[..., [1, 2, 0]], angle)[..., [2, 0, 1]]


def _surroundings(rng: Generator, point: Float[np.ndarray, "n N 3"]) -> Float[np.ndarray, "n N 3"]:
    """As many points of a floor and of a box that stands on it next to the object."""
    n, many, _ = point.shape
    floor = point[..., 1].min(1)
    on_floor = rng.uniform(-1.2, 1.2, point.shape)
    on_floor[..., 1] = floor[:, None]
    half, where = rng.uniform(0.1, 0.4, (3, n)), rng.uniform(0, 2 * np.pi, n)
    away = rng.uniform(1.0, 1.4, n)
    beside, _, _ = box(rng, many, list(half), [away * np.cos(where), floor + half[1], away * np.sin(where)])
    return np.where(rng.random((n, many, 1)) < rng.uniform(0.3, 1, (n, 1, 1)), on_floor, beside)


def write_shapes(path: str | Path, *, count: int, seed: int, points: int) -> None:
    """Write `count` scans, distributed evenly over the kinds, in the format of ScanObjectNN.

    The file is written under a temporary name and renamed, so that two processes may write it at once; its content
    depends on the seed alone.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(OBJECTS)
    data, mask = np.empty((count, points, 3), np.float32), np.empty((count, points), np.int32)
    for label, kind in enumerate(OBJECTS):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            data[rows], on_object = scan(rng, kind, len(rows), points=points)
            mask[rows] = np.where(on_object, 0, -1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with h5py.File(beside, "w", locking=False) as file:
            file.update({"data": data, "label": labels.astype(np.int32), "mask": mask})
            file.attrs.update({"classes": ",".join(OBJECTS), "seed": seed, "version": VERSION})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def shapes_root(root: str | Path | None = None) -> Path:
    """The folder of the shapes, ROOT/shapes-vN, created if it is missing; takes a few seconds and 40 MB.

    Args:
        root: unset, it is $XDG_CACHE_HOME/pointmix or ~/.cache/pointmix.
    Raises:
        OSError: if it cannot be written.
    """
    home = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pointmix")
    folder = home / f"shapes-v{VERSION}"
    for seed, (split, count) in enumerate(COUNTS.items()):
        path = folder / f"main_split/{split}_objectdataset.h5"
        if not path.is_file():
            try:
                write_shapes(path, count=count, seed=seed, points=POINTS)
            except OSError as error:
                reason = error.strerror or str(error).splitlines()[0]
                raise OSError(f"cannot write the shapes to {path}: {reason}; name another folder, data.root") from error
    return folder


def _check(config: PointDataConfig) -> None:
    if config.classes is not None:
        raise ValueError("data.classes is set, but data.source is shapes, which have names of their own")


@register_source("shapes", check=_check)
def open_split(config: PointDataConfig, split: str) -> CloudFiles:
    """A split as a configuration asks for it; the shapes are generated on first use."""
    files = open_scanobjectnn(shapes_root(config.root), split=split, variant="obj_bg", **file_options(config))
    check_points(config, files)
    return files
