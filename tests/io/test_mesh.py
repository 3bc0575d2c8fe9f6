"""Points on the surface of meshes."""

from __future__ import annotations

import numpy as np
import pytest

from pointmix.io import read_cloud, read_columns
from pointmix.io.mesh import on_surface, triangles

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float64)
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_points_are_on_the_surface_as_likely_as_its_area():
    # a small triangle of a quarter of the area, far above
    pos = np.concatenate([SQUARE, SQUARE[:3] / 2**0.5 + [0, 0, 9]])
    points, parts, _ = on_surface(pos, np.concatenate([FACES, [[4, 5, 6]]]), {}, None, 20_000)
    high = points[:, 2] > 1
    assert abs(high.mean() - 0.2) < 0.015 and set(points[:, 2]) == {0.0, 9.0}
    flat = points[~high]
    for axis in (0, 1):
        assert abs(np.histogram(flat[:, axis], 4, (0, 1))[0] / len(flat) - 0.25).max() < 0.015
    assert np.allclose(parts["normal"], [0, 0, 1]) and parts["normal"].dtype == np.float32


def test_features_are_interpolated_and_labels_are_the_nearest_vertex_s():
    value, color = SQUARE[:, 0] * 10, (SQUARE * 200).astype(np.uint8)
    points, parts, label = on_surface(SQUARE, FACES, {"value": value, "rgb": color}, np.array([0, 1, 2, 3]), 500)
    assert np.allclose(parts["value"], points[:, 0] * 10)
    assert parts["rgb"].dtype == np.uint8 and np.abs(parts["rgb"] - points * 200).max() <= 0.5 + 1e-6
    # the nearest in barycentric coordinates is one of the three of the point's triangle
    assert np.linalg.norm(points - SQUARE[label], axis=1).max() < 0.75


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e-4])
def test_normals_of_vertices_become_unit_vectors(scale):
    normal = np.array([[1, 0, 1], [-1, 0, 1], [0, 1, 1], [0, 0, 1]], np.float32) * np.float32(scale)
    found = on_surface(SQUARE, FACES, {"normal": normal}, None, 500)[1]["normal"]
    assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.abs(found[:, 0]).max() > 0.5  # still those of the vertices
    cancel = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32) * 0
    assert np.array_equal(on_surface(SQUARE, FACES, {"normal": cancel}, None, 9)[1]["normal"], [[0, 0, 1]] * 9)


def test_the_same_mesh_gives_the_same_points_and_another_mesh_others():
    first, again = (on_surface(SQUARE, FACES, {}, None, 9)[0] for _ in range(2))
    other = on_surface(SQUARE * 2, FACES, {}, None, 9)[0] / 2
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_map_coordinates_of_a_mesh():
    far = SQUARE + [500_000, 4_500_000, 0]
    points = on_surface(far, FACES, {}, None, 100)[0]
    assert points.dtype == np.float64 and (points >= far.min(0)).all() and (points <= far.max(0)).all()
    assert len(np.unique(points[:, 1])) == 100


def test_whole_numbers_move_points_and_normals_bit_for_bit():
    far = np.random.default_rng(0).normal(size=(300, 3)) + [500_000, 4_500_000, 80]
    faces = np.arange(300).reshape(100, 3)
    there, beside, _ = on_surface(far, faces, {}, None, 500)
    here, near, _ = on_surface(far - [500_000, 4_500_000, 80], faces, {}, None, 500)
    assert np.array_equal(there - [500_000, 4_500_000, 80], here) and np.array_equal(beside["normal"], near["normal"])


def test_faces_with_nan():
    pos = np.concatenate([SQUARE[:3], [[np.nan] * 3]])
    with pytest.raises(ValueError, match="1 of 2 faces have vertices that are NaN or infinite"):
        on_surface(pos, FACES, {}, None, 9)
    assert np.isfinite(on_surface(pos, FACES[:1], {}, None, 9)[0]).all()  # no face has the vertex


def test_polygons_become_triangles():
    found = triangles([np.array([0, 1]), np.array([5, 6, 7, 8]), np.array([1, 2, 3])])
    assert sorted(found.tolist()) == [[1, 2, 3], [5, 6, 7], [5, 7, 8]]
    assert triangles([]).shape == (0, 3)


def test_the_number_of_points_or_the_vertices(tmp_path):
    (tmp_path / "a.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n")
    assert read_cloud(tmp_path / "a.off", surface_points=7)[0].shape == (7, 3)
    assert read_cloud(tmp_path / "a.off", surface_points=0)[0].tolist() == SQUARE.tolist()
    with pytest.raises(ValueError, match="no feature normal"):  # faces have normals, vertices have none
        read_columns(tmp_path / "a.off", surface_points=0, features=("normal",))


def test_colors_of_vertices(tmp_path):
    rows = [f"v {x} {y} {z} 1 0.2 0" for x, y, z in SQUARE]
    (tmp_path / "a.obj").write_text("\n".join(["mtllib /etc/passwd", *rows, "usemtl none", "f 1 2 3", "f 1 3 4", ""]))
    assert np.allclose(read_cloud(tmp_path / "a.obj", features="rgb", surface_points=5)[1], [1, 0.2, 0])
