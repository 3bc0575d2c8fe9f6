"""Points must lie on the surface, evenly, with normals at right angles to it, by the equation of the surface."""

from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.clouds.surfaces import ball, box, choose, column, pyramid, tube, turned

MANY = 4000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def each(*values: float) -> np.ndarray:
    return np.array(values)


def check_normals(implicit, point, normal, where=slice(None)) -> None:
    """The normal is the direction in which the implicit function rises."""
    point, normal, step = point[where], normal[where], 1e-5
    gradient = np.stack([implicit(point + d) - implicit(point - d) for d in np.eye(3) * step], -1)
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True)
    assert np.allclose(gradient, normal, atol=1e-4)


def test_choose_follows_the_weights():
    drawn = choose(rng(), np.array([[1.0, 2.0, 1.0], [0.0, 1.0, 0.0]]), 20000)
    shares = np.stack([np.bincount(row, minlength=3) / 20000 for row in drawn])
    assert np.allclose(shares, [[0.25, 0.5, 0.25], [0, 1, 0]], atol=0.02)


def test_turned_about_y():
    assert np.allclose(turned(np.array([[[0.0, 5.0, 1.0]]]), np.array([[np.pi / 2]])), [[[1, 5, 0]]])


def test_ball():
    point, normal, area = ball(rng(), MANY, each(1.0, 2.0))
    assert np.allclose(np.linalg.norm(point, axis=2), [[1.0], [2.0]]) and np.allclose(area, 4 * np.pi * each(1, 4))
    assert np.allclose(point, normal * each(1, 2)[:, None, None]) and np.abs(normal.mean(1)).max() < 0.05


def test_box():
    half, center = [each(1.0), each(2.0), each(0.5)], [each(3.0), each(0.0), each(-1.0)]
    point, normal, area = box(rng(), MANY, half, center)
    local = (point - [3, 0, -1]) / [1, 2, 0.5]
    assert np.abs(local).max() <= 1 + 1e-9 and np.allclose(np.abs(local).max(2), 1)
    assert np.allclose((local * normal).sum(2), 1) and np.allclose(area, 8 * (2 + 1 + 0.5))
    shares = np.abs(normal[0]).mean(0)
    assert np.allclose(shares, each(1, 0.5, 2) / 3.5, atol=0.03) and np.abs(normal[0].mean(0)).max() < 0.05


@pytest.mark.parametrize("low, high", [(1.0, 1.0), (1.0, 0.0), (0.5, 1.5)])
def test_column(low, high):
    point, normal, area = column(rng(), MANY, each(low), each(high), each(-1.0), each(2.0))
    x, y, z = point[0].T
    radius = np.hypot(x, z)
    wall = low + (high - low) * (y + 1) / 3
    mantle = np.abs(normal[0][:, 1]) < 1 - 1e-9
    assert np.allclose(radius[mantle], wall[mantle]) and (radius <= wall + 1e-9).all()
    assert np.isin(y[~mantle].round(9), [-1, 2]).all()
    check_normals(lambda p: np.hypot(p[..., 0], p[..., 2]) - (high - low) * p[..., 1] / 3, point[0], normal[0], mantle)
    slant = np.hypot(3, low - high)
    assert np.allclose(area, np.pi * ((low + high) * slant + low**2 + high**2))
    assert abs(mantle.mean() - (low + high) * slant * np.pi / area[0]) < 0.03
    below, middle = (y[mantle] < 0.5).mean(), (low + high) / 2
    assert abs(below - (low + middle) / (low + 2 * middle + high)) < 0.03  # as the areas of the two halves


def test_pyramid():
    point, normal, area = pyramid(rng(), MANY, each(1.0), each(2.0))
    x, y, z = point[0].T
    base = normal[0][:, 1] < 0
    assert np.allclose(y[base], 0) and np.allclose(np.maximum(np.abs(x), np.abs(z))[~base], 1 - y[~base] / 2)
    check_normals(lambda p: np.abs(p[..., [0, 2]]).max(-1) + p[..., 1] / 2, point[0], normal[0], ~base)
    assert np.allclose(area, 4 + 4 * np.sqrt(5)) and abs(base.mean() - 4 / area[0]) < 0.03


def test_tube_along_a_circle_and_a_helix():
    point, normal, area = tube(rng(), MANY, each(1.0, 1.0), each(0.2, 0.1), each(1.0, 3.0), each(0.0, 0.5))

    def ring(p):
        return np.hypot(np.hypot(p[..., 0], p[..., 2]) - 1, p[..., 1])

    assert np.allclose(ring(point[0]), 0.2) and np.allclose(area[0], 4 * np.pi**2 * 0.2)
    check_normals(ring, point[0], normal[0])
    assert np.allclose(area[1], 4 * np.pi**2 * 0.1 * 3, rtol=0.01)
    assert point[1][:, 1].min() > -0.11 and 1.5 < point[1][:, 1].max() < 1.61
    angle = np.arctan2(point[1][:, 2], point[1][:, 0]) / (2 * np.pi)
    from_line = (point[1][:, 1] / 0.5 - angle + 0.5) % 1 - 0.5  # turns off the helix
    assert np.abs(from_line).max() < 0.1 / 0.5 + 0.01
