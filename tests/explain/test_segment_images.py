from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.segment_images import WRONG, draw_image_predictions, errors, painted


def a_sample(height=20, width=30):
    rng = np.random.default_rng(0)
    label = rng.integers(-1, 3, (height, width))
    return rng.random((height, width, 3)), label, np.roll(label.clip(min=0), 1, 1)


@pytest.mark.parametrize("sizes", [[(20, 30)], [(1, 1)], [(200, 150), (7, 50), (30, 3)]])
def test_pictures_of_any_size(tmp_path, sizes):
    images, labels, predictions = zip(*(a_sample(*size) for size in sizes), strict=True)
    draw_image_predictions(tmp_path / "p.png", images, labels, predictions, ["a", "b $", "c"], names=["x"] * len(sizes))
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 1200 and picture.height > 150 * len(sizes)


def test_the_picture_has_the_colors_of_truth_and_prediction(tmp_path):
    image, label = np.full((40, 40, 3), 0.5), np.zeros((40, 40), dtype=np.int64)
    palette = [(200, 10, 20), (10, 30, 250)]
    draw_image_predictions(tmp_path / "p.png", [image], [label], [label + 1], ["a", "b"], palette)
    with Image.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    thirds = np.array_split(pixels, 4, axis=1)
    found = [
        (np.abs(part.astype(int) - color) <= 1).all(2).mean() for part, color in zip(thirds[1:3], palette, strict=True)
    ]
    assert min(found) > 0.3


def test_errors_are_red_and_pixels_without_a_label_are_none():
    image = np.zeros((1, 4, 3))
    shown = errors(image, np.array([[0, 1, -1, 0]]), np.array([[0, 0, 0, -1]]))
    assert shown[0, 1] == pytest.approx(0.8 * np.array(WRONG) + 0.2 * 0.45)
    assert np.ptp(shown[0, 0]) == 0 and np.isnan(shown[0, 2:]).all()
    assert np.isnan(painted(np.array([[-1]]), np.zeros((2, 3)))).all()


def test_sizes_must_match(tmp_path):
    image, label, predicted = a_sample()
    with pytest.raises(ValueError, match=r"of one size expected, got \(20, 30\), \(20, 29\), \(20, 30\)"):
        draw_image_predictions(tmp_path / "p.png", [image], [label[:, 1:]], [predicted], ["a", "b", "c"])
    with pytest.raises(ValueError, match="no image to draw"):
        draw_image_predictions(tmp_path / "p.png", [], [], [], ["a"])
    assert list(tmp_path.iterdir()) == []
