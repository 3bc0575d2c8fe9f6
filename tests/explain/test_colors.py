"""Colors of regions."""

from __future__ import annotations

import numpy as np

from pointmix.explain.colors import color_regions, palette, touching


def test_touching_pairs():
    assert touching(np.array([[0, 1], [2, 1], [-1, 3]])) == {(0, 1), (0, 2), (1, 2), (1, 3)}


def test_touching_regions_and_regions_of_a_window_differ():
    rng = np.random.default_rng(0)
    rows, columns = np.indices((24, 24))
    groups = rows // 6 * 4 + columns // 6
    labels = groups * 4 + rng.integers(0, 4, groups.shape)
    colors = {label: tuple(color) for label, color in color_regions(labels, groups).items()}
    assert set(colors) == set(np.unique(labels).tolist())
    assert all(colors[a] != colors[b] for a, b in touching(labels))
    for group in range(16):
        members = np.unique(labels[groups == group]).tolist()
        assert len({colors[m] for m in members}) == len(members)


def test_more_regions_than_colors_still_differ_where_they_touch():
    labels = np.arange(100).reshape(10, 10)
    colors = {label: tuple(color) for label, color in color_regions(labels, np.zeros_like(labels)).items()}
    assert all(colors[a] != colors[b] for a, b in touching(labels))


def test_the_palette_has_no_color_twice():
    assert len(np.unique(palette(), axis=0)) == len(palette())


def test_absent_cells_have_no_color():
    assert color_regions(np.full((2, 2), -1), np.full((2, 2), -1)) == {}
