"""Which points a page shows, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix import PointSet
from pointmix.explain.frames import on_lattice
from pointmix.explain.page import scene
from pointmix.explain.page.scene import cloud_scene, frame_scene, image_scene


@pytest.mark.parametrize("mode", ["inclusive", "exclusive"])
def test_an_image_keeps_its_pixels_and_colors(mode):
    image = torch.rand(1, 3, 5, 7)
    shown = image_scene((image - 0.5) / 0.2, mean=[0.5] * 3, std=[0.2] * 3, coord_mode=mode)
    lattice = shown.points
    assert (lattice.count, lattice.given, lattice.height, lattice.width, lattice.step) == (35, 35, 5, 7, 1)
    assert lattice.pixel.tolist() == list(range(35))
    expected = np.rint(image[0].permute(1, 2, 0).flatten(0, 1).numpy() * 255)
    assert np.abs(lattice.color - expected).max() <= 1
    at = shown.place(PointSet.from_batch(image, coord_mode=mode).pos)  # a center on every pixel
    np.testing.assert_allclose(at, [[r, c] for r in range(5) for c in range(7)], atol=1e-5)


def test_a_large_partial_image_is_thinned_by_rows_and_columns(monkeypatch):
    monkeypatch.setattr(scene, "MAX_PIXELS", 20)
    mask = torch.zeros(10, 12)
    mask[2:9, 3:] = 1
    points = PointSet.from_image(torch.rand(3, 10, 12), mask)
    lattice = (shown := image_scene(points)).points
    cells = [(r, c) for r in range(0, 10, 2) for c in range(0, 12, 2) if mask[r, c]]
    assert lattice.step == 2 and (lattice.height, lattice.width) == (5, 6) and lattice.given == 63
    assert lattice.pixel.tolist() == [r // 2 * 6 + c // 2 for r, c in cells] and lattice.count == len(cells) <= 20
    np.testing.assert_allclose(shown.place(shown.pos), [(r / 2, c / 2) for r, c in cells], atol=1e-5)


def test_a_frame_is_shown_on_its_image_plane():
    rng = np.random.default_rng(0)
    rgb, depth = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), rng.integers(500, 900, (6, 8)).astype(np.uint16)
    depth[:2] = 0
    cloud = PointSet.from_rgbd(rgb, depth, (9, 9, 3.5, 2.5))
    shown = frame_scene(on_lattice(cloud, depth, None), rgb)
    assert shown.points.pixel.tolist() == list(range(16, 48))
    np.testing.assert_array_equal(shown.points.color, rgb[2:].reshape(-1, 3))
    assert shown.x.pos.equal(cloud.pos) and not hasattr(shown.x.layout, "cell")
    at = shown.place(cloud.pos[[5, 30]] + 1e-4)
    np.testing.assert_allclose(at, [[2, 5], [5, 6]], atol=1e-5)


def test_a_cloud_is_thinned_turned_and_stored_in_its_box(monkeypatch):
    monkeypatch.setattr(scene, "MAX_POINTS", 100)
    pos = torch.rand(300, 3) * torch.tensor([1.0, 2.0, 4.0]) + 5
    shown = cloud_scene(PointSet.from_points(pos, torch.rand(300, 3)), up="y")
    points = shown.points
    assert (points.count, points.given) == (100, 300) and len(shown.x.pos) == 300
    where = np.array(points.low) + points.scale * points.position.astype(float)
    expected = shown.pos.numpy()[:, [0, 2, 1]] * [1, -1, 1]  # right-handed, y is up
    np.testing.assert_allclose(where, expected, atol=2 * points.scale)
    assert points.scale * 65535 == pytest.approx(4, rel=0.05) and points.light.min() > 100
    np.testing.assert_array_equal(shown.place(shown.pos), points.position)


@pytest.mark.parametrize(
    "points, up, message",
    [
        (PointSet.from_points(torch.rand(9, 2)), "y", "expected points in 3 dimensions, got 2"),
        (PointSet.from_points(torch.rand(9, 3)), "w", "up must be one of"),
        (PointSet.from_points(torch.rand(9, 3), batch=[0] * 4 + [1] * 5), "y", "a page is of one input, got 2"),
    ],
)
def test_what_cannot_be_shown(points, up, message):
    with pytest.raises(ValueError, match=message):
        cloud_scene(points, up=up)
