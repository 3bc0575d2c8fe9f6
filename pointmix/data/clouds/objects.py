"""Twelve kinds of objects as surfaces of random proportions, y up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from pointmix.data.clouds.surfaces import Sizes, Surface, ball, box, column, pyramid, tube


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
