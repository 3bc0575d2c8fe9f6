from __future__ import annotations

import pytest
from PIL import Image

from pointmix.explain.confusion import draw_confusion


@pytest.mark.parametrize("classes", [1, 2, 15, 60])
def test_picture_of_any_number_of_classes(tmp_path, classes):
    counts = [[10 * (i == j) + (j == 0) for j in range(classes)] for i in range(classes)]
    counts[-1] = [0] * classes  # a class that does not occur
    draw_confusion(tmp_path / "c.png", counts, [f"class $ {i}" for i in range(classes)])
    with Image.open(tmp_path / "c.png") as picture:
        assert min(picture.size) > 300


def test_the_picture_follows_the_counts(tmp_path):
    for name, counts in (("a", [[3, 0], [0, 2]]), ("b", [[0, 3], [0, 2]])):
        draw_confusion(tmp_path / name, counts, ["x", "y"])
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_names_must_fit(tmp_path):
    with pytest.raises(ValueError, match=r"expected 3 x 3 counts for 3 names, got \(2, 2\)"):
        draw_confusion(tmp_path / "c.png", [[1, 0], [0, 1]], ["a", "b", "c"])
    assert list(tmp_path.iterdir()) == []
