"""Points sampled evenly on simple surfaces, many surfaces at once, for procedural clouds.

Every function takes sizes (n,) of n surfaces and returns `many` points on each, unit outward normals, and the areas.
The y axis is up.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator

Sizes = Float[np.ndarray, " n"]
Surface = tuple[Float[np.ndarray, "n M 3"], Float[np.ndarray, "n M 3"], Sizes]  # points, normals, area


def choose(rng: Generator, weights: Float[np.ndarray, "n K"], many: int) -> Int[np.ndarray, "n M"]:
    """Random column indices, with probabilities proportional to the weights."""
    ends = weights.cumsum(1)
    drawn = rng.random((len(weights), many)) * ends[:, -1:]
    return (drawn[..., None] >= ends[:, None, :-1]).sum(2)


def turned(points: Float[np.ndarray, "n M 3"], angle: Float[np.ndarray, "n #M"]) -> Float[np.ndarray, "n M 3"]:
    """Points rotated about y by angles in radians."""
    x, y, z = np.moveaxis(points, 2, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], 2)


def ball(rng: Generator, many: int, radius: Sizes) -> Surface:
    """A sphere centered at the origin."""
    normal = rng.standard_normal((len(radius), many, 3))
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return normal * radius[:, None, None], normal, 4 * np.pi * radius**2


def box(rng: Generator, many: int, half: list[Sizes], center: list[Sizes]) -> Surface:
    """An axis-aligned box with half sides `half` and center `center`, both as x, y, z."""
    sides, middle = np.stack(half, 1), np.stack(center, 1)  # (n, 3)
    faces = sides.prod(1, keepdims=True) / sides  # (n, 3), a quarter of the area of the face across each axis
    axis = choose(rng, faces, many)  # (n, M)
    normal = np.eye(3)[axis] * np.where(rng.random(axis.shape) < 0.5, -1, 1)[..., None]
    point = np.where(normal != 0, normal, rng.uniform(-1, 1, normal.shape))
    return point * sides[:, None] + middle[:, None], normal, 8 * faces.sum(1)


def column(rng: Generator, many: int, low: Sizes, high: Sizes, bottom: Sizes, top: Sizes) -> Surface:
    """A cylinder, cone or frustum about y: radius `low` at y = `bottom`, `high` at y = `top`, closed at both ends."""
    slant = np.hypot(top - bottom, low - high)
    area = np.stack(
        [(low + high) * slant, low**2, high**2], 1
    )  # lateral surface, lower and upper end; without the factor pi
    part = choose(rng, area, many)  # (n, M)
    u, angle = rng.random(part.shape), rng.uniform(0, 2 * np.pi, part.shape)
    low, high, bottom, top, slant = (i[:, None] for i in (low, high, bottom, top, slant))
    radius = np.choose(part, [np.sqrt((1 - u) * low**2 + u * high**2), low * np.sqrt(u), high * np.sqrt(u)])
    same = np.abs(low - high) < 1e-9
    ratio = np.where(same, u, (low - radius) / np.where(same, 1, low - high))  # of the height
    y = np.choose(part, [bottom + ratio * (top - bottom), bottom + 0 * u, top + 0 * u])
    out = np.where(part == 0, (top - bottom) / slant, 0)
    up = np.choose(part, [(low - high) / slant + 0 * u, -1 + 0 * u, 1 + 0 * u])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([radius * cos, y, radius * sin], 2), np.stack([out * cos, up, out * sin], 2), np.pi * area.sum(1)


def pyramid(rng: Generator, many: int, half: Sizes, tall: Sizes) -> Surface:
    """A square base of half side `half` at y = 0 and four faces up to an apex at y = `tall`."""
    slant = np.hypot(half, tall)
    area = np.stack([4 * half * slant, 4 * half**2], 1)
    base = choose(rng, area, many) == 1  # (n, M)
    half, tall, slant = half[:, None], tall[:, None], slant[:, None]
    up = np.where(base, 0, 1 - np.sqrt(rng.random(base.shape)))
    across, along = rng.uniform(-1, 1, (2, *base.shape)) * half
    point = np.stack([np.where(base, across, (1 - up) * half), up * tall, (1 - up) * along], 2)
    normal = np.stack([np.where(base, 0, tall / slant), np.where(base, -1, half / slant), 0 * up], 2)
    face = rng.integers(0, 4, base.shape) * (np.pi / 2)
    return turned(point, face), turned(normal, face), area.sum(1)


def tube(rng: Generator, many: int, radius: Sizes, thick: Sizes, turns: Sizes, rise: Sizes) -> Surface:
    """A tube of radius `thick` along a circle of radius `radius` about y, or a helix that rises by `rise` per turn.

    It starts at angle 0, on the x axis. The ends are open, and points are slightly denser on the inner side.
    """
    area = 4 * np.pi**2 * thick * turns * np.hypot(radius, rise / (2 * np.pi))
    radius, thick, turns, rise = (i[:, None] for i in (radius, thick, turns, rise))
    turn = rng.random((len(radius), many)) * turns  # (n, M)
    angle, around = 2 * np.pi * turn, rng.uniform(0, 2 * np.pi, turn.shape)
    cos, sin, out, up = np.cos(angle), np.sin(angle), np.cos(around), np.sin(around)
    away = radius + thick * out
    point = np.stack([away * cos, rise * turn + thick * up, away * sin], 2)
    return point, np.stack([out * cos, up, out * sin], 2), area
