"""Procedural clouds of twelve kinds of objects, to try everything without a download.

Surfaces are sampled evenly, scanned from one direction (the far side is missing, wholly or in part), stretched,
rotated, tilted and noisy, with background points: a floor and another box. They are stored in the format of
ScanObjectNN, y up.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Float
from numpy.random import Generator

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5 import CloudFiles, check_points, file_options
from pointmix.data.clouds.objects import OBJECTS
from pointmix.data.clouds.source import register_source
from pointmix.data.clouds.sources.scanobjectnn import open_scanobjectnn
from pointmix.data.clouds.surfaces import box, choose, turned

VERSION = 2  # of the generated data: raise it whenever they change
COUNTS = {"training": 2000, "test": 500}
POINTS = 1024


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


@register_source("shapes", check=_check, uses=(), defaults={"up": "y"})
def open_split(config: PointDataConfig, split: str) -> CloudFiles:
    """A split as a configuration asks for it; the shapes are generated on first use."""
    files = open_scanobjectnn(shapes_root(config.root), split=split, variant="obj_bg", **file_options(config))
    check_points(config, files)
    return files
