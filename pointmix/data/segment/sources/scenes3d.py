"""Procedural 3D scenes: objects on a floor, some with walls, a label for every point; nothing to download.

Objects of six kinds in random sizes and directions stand apart from each other on a square floor with up to two walls.
Surfaces are sampled evenly, the floor half as densely, and seen from one side: points that face away are missing,
wholly or in part. Positions are in meters, z up, with noise of 1 cm; the normals have noise of 0.1 along each axis. A
scene depends on the split and its index alone, and is made when it is first read.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from pointmix.data.clouds.objects import OBJECTS
from pointmix.data.clouds.surfaces import turned
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import LabeledCloud
from pointmix.data.segment.settings import check_generated
from pointmix.data.segment.source import Color, register_segment_source

VERSION = 1  # of the scenes: raise it whenever they change
COUNTS = {"train": 800, "val": 50, "test": 100}
POINTS = (1536, 2560)  # of a scene, at most
KINDS = ("ball", "box", "cone", "lamp", "table", "chair")
CLASSES = ("floor", "wall", *KINDS)
PALETTE: tuple[Color, ...] = (
    (160, 160, 160), (205, 190, 150), (214, 60, 60), (66, 120, 200), (80, 170, 90), (240, 160, 40), (140, 90, 180),
    (60, 190, 200),
)  # fmt: skip

Points = Float[np.ndarray, "M 3"]
Part = tuple[Points, Points, float]  # points on a surface, y up, their normals, its area


def _plane(rng: Generator, many: int, corner: list[float], sides: list[list[float]], normal: list[float]) -> Part:
    """A rectangle from a corner along two sides."""
    along = np.array(sides)
    points = np.array(corner) + rng.random((many, 2)) @ along
    return points, np.tile(np.array(normal, float), (many, 1)), float(np.linalg.norm(np.cross(*along)))


def _room(rng: Generator, many: int, half: float) -> list[tuple[int, Part]]:
    """A floor of half side `half` and none, one or two walls, with their labels."""
    side, tall = 2 * half, rng.uniform(0.8, 1.2)
    floor = _plane(rng, many, [-half, 0, -half], [[side, 0, 0], [0, 0, side]], [0, 1, 0])
    left = _plane(rng, many, [-half, 0, -half], [[0, 0, side], [0, tall, 0]], [1, 0, 0])
    back = _plane(rng, many, [-half, 0, -half], [[side, 0, 0], [0, tall, 0]], [0, 0, 1])
    return [(0, floor), (1, left), (1, back)][: 1 + rng.integers(3)]


def _object(rng: Generator, many: int, kind: str) -> list[Part]:
    """The surfaces of an object of random size and direction that stands at the origin."""
    size, angle = rng.uniform(0.4, 0.6), rng.uniform(0, 2 * np.pi, (1, 1))
    found = OBJECTS[kind](rng, many, 1)
    parts = [(turned(p * size, angle)[0], turned(n, angle)[0], float(a[0]) * size**2) for p, n, a in found]
    lowest = min(points[:, 1].min() for points, _, _ in parts)
    return [(points - [0, lowest, 0], normals, area) for points, normals, area in parts]


def _objects(rng: Generator, many: int, half: float) -> list[tuple[int, Part]]:
    """Four to eight objects, fewer where there is no room, with their labels."""
    placed: list[tuple[float, float, float]] = []  # x, z, radius of the circles that they stand in
    parts = []
    for kind in rng.choice(KINDS, rng.integers(4, 9)):
        found = _object(rng, many, kind)
        radius = max(float(np.hypot(points[:, 0], points[:, 2]).max()) for points, _, _ in found)
        for x, z in rng.uniform(radius - half, half - radius, (50, 2)):
            if all(np.hypot(x - i, z - j) > radius + other + 0.05 for i, j, other in placed):
                placed.append((x, z, radius))
                label = CLASSES.index(kind)
                parts += [(label, (points + [x, 0, z], normals, area)) for points, normals, area in found]
                break
    return parts


def make_scene(rng: Generator) -> LabeledCloud:
    """One scene; points are in random order."""
    points, half = int(rng.integers(*POINTS)), rng.uniform(1.6, 2.1)
    parts = _room(rng, 2 * points, half) + _objects(rng, points // 2, half)
    area = np.array([part[2] for _, part in parts])
    area[0] /= 2
    counts = rng.multinomial(2 * points, area / area.sum())
    chosen = [(label, p[:n], normals[:n]) for n, (label, (p, normals, _)) in zip(counts, parts, strict=True)]
    pos, normal = (np.concatenate([entry[i] for entry in chosen]) for i in (1, 2))
    label = np.repeat([entry[0] for entry in chosen], [len(entry[1]) for entry in chosen])

    azimuth, height = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(20, 60))
    view = [np.cos(height) * np.cos(azimuth), np.sin(height), np.cos(height) * np.sin(azimuth)]
    visible = normal @ view > -rng.uniform(0, 1)
    visible &= (label < 2) | (normal[:, 1] > -0.5) | (pos[:, 1] > 0.05)  # not the faces that objects stand on
    index = rng.permutation(np.flatnonzero(visible | (label == 1)))[:points]
    angle, noise = rng.uniform(0, 2 * np.pi, (1, 1)), rng.standard_normal((2, len(index), 3))
    pos = turned(pos[None, index], angle)[0] + 0.01 * noise[0]
    normal = turned(normal[None, index], angle)[0] + 0.1 * noise[1]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    pos, normal = ((i[:, [0, 2, 1]] * [1, -1, 1]).astype(np.float32) for i in (pos, normal))  # z up
    return LabeledCloud(pos, {"normal": normal}, label[index])


class Scenes3D:
    """The scenes of a split, each made when it is first read and then kept, 64 KB a scene."""

    classes, palette, categories = CLASSES, PALETTE, None

    def __init__(self, split: str) -> None:
        self.split = split
        self._made: dict[int, LabeledCloud] = {}

    def __len__(self) -> int:
        return COUNTS[self.split]

    def name(self, index: int) -> str:
        return f"scenes3d {self.split} {index}"

    def read(self, index: int) -> LabeledCloud:
        if index not in self._made:
            self._made[index] = make_scene(np.random.default_rng((VERSION, list(COUNTS).index(self.split), index)))
        return self._made[index]


@register_segment_source("scenes3d", kind="cloud", check=check_generated, defaults={"features": ("normal",), "up": "z"})
def open_scenes3d(config: SegmentDataConfig, split: str) -> Scenes3D:
    """The scenes of a split."""
    return Scenes3D(split)
