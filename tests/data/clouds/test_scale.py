from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.clouds.scale import measure, scale_warning


def test_measures_of_finite_points():
    assert measure(np.array([[0, 0, 0], [3, -4, 0], [np.nan, 9, 9]])) == (5.0, 4.0)
    assert measure(np.full((2, 3), np.inf)) == (0.0, 0.0)
    size, distance = measure(np.array([[500_000, 4_500_000, 0], [500_001, 4_500_000, 0]], np.float64))
    assert (size, distance) == (1.0, 4_500_001 - 1)


@pytest.mark.parametrize(
    "size, distance, trained, normalize, text",
    [
        (101.0, 50.0, 1.0, "unit_sphere", "a.ply: 101 from corner to corner, the training data 1; are the units"),
        (0.9, 0.9, 100.0, "center", "a.ply: 0.9 from corner to corner, the training data 100"),
        (99.0, 99.0, 1.0, "none", None),
        (1.0, 5e6, 1.0, "center", None),
        (1.0, 5e6, 1.0, "none", "a.ply: up to 5e.06 from the origin with a size of 1, and data.normalize is none"),
        (1.0, 5e6, None, "none", "up to 5e.06 from the origin"),
        (1.0, 90.0, 1.0, "none", None),
        (0.0, 0.0, 1.0, "none", None),
        (5.0, 5.0, None, "center", None),
    ],
)
def test_what_is_warned_of(size, distance, trained, normalize, text):
    import re

    found = scale_warning("a.ply", size, distance, trained, normalize)
    assert (found is None) if text is None else re.search(text, found)
