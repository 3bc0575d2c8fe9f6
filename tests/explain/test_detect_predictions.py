from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.detect_images import Drawn, overlay
from pointmix.explain.detect_predictions import PANEL, draw_detections
from tests.explain.test_detect_images import GREEN, NONE, RED, an_object, is_color


def test_truth_and_prediction_are_side_by_side(tmp_path):
    image = np.full((32, 64, 3), 0.5)
    image[:, 40:] = np.nan
    both = Drawn(np.array([[5.0, 5, 20, 20]] * 2), np.array([1, 0]), np.array([0.6, 0.4]), iter(np.ones((2, 32, 64))))
    file, palette = tmp_path / "p.png", [RED, GREEN]
    draw_detections(file, [image, image], [an_object(), NONE], [both, NONE], ["a", "b $"], palette, names=["x", "y"])
    with Image.open(file) as picture:
        shown = picture.convert("RGB")
    half = shown.width // 2
    truth, found = shown.crop((0, 0, half, 300)), shown.crop((half, 0, shown.width, 300))
    assert half > PANEL and is_color(truth, RED).any() and not is_color(truth, GREEN).any()
    assert is_color(found, GREEN).any() and not is_color(found, RED).any()  # a score of 0.4 is left out
    draw_detections(file, [image], [an_object()], [both._replace(masks=None)], ["a", "b"], palette, min_score=0.1)
    with Image.open(file) as picture:
        assert is_color(picture.crop((half, 0, picture.width, 300)), RED).any()


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (700, 20)])
def test_any_size_and_number_of_classes_and_objects(tmp_path, classes, size):
    rng = np.random.default_rng(0)
    corner = rng.random((125, 2)) * size[::-1]
    boxes = np.concatenate([corner, corner + 10], 1)
    objects = Drawn(boxes, np.arange(125) % classes, rng.random(125))
    names = [f"the long name of class number {i}" for i in range(classes)]
    draw_detections(tmp_path / "p.png", [rng.random((*size, 3))], [objects._replace(scores=None)], [objects], names)
    assert min(Image.open(tmp_path / "p.png").size) > 60
    overlay(Image.new("RGB", size[::-1]), objects, names)


def test_no_image(tmp_path):
    with pytest.raises(ValueError, match="no image to draw"):
        draw_detections(tmp_path / "p.png", [], [], [], ["a"])
    assert list(tmp_path.iterdir()) == []
