from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain import segment_clouds as module
from pointmix.explain.segment_clouds import _projected, draw_cloud_predictions


def a_cloud(number):
    rng = np.random.default_rng(0)
    label = rng.integers(-1, 3, number)
    return 1e6 + rng.random((number, 3)), label, np.roll(label.clip(min=0), 1)


@pytest.mark.parametrize("sizes", [[1], [2, 300]])
def test_clouds_of_any_size(tmp_path, sizes):
    clouds, labels, predictions = zip(*map(a_cloud, sizes), strict=True)
    draw_cloud_predictions(tmp_path / "p.png", clouds, labels, predictions, ["a", "b $", "c"], up="y")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 1200 and picture.height > 200


def test_large_clouds_are_thinned(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "MAX_POINTS", 50)
    monkeypatch.setattr(module, "_projected", lambda pos: drawn.append(len(pos)) or _projected(pos))
    cloud, label, predicted = a_cloud(400)
    draw_cloud_predictions(tmp_path / "p.png", [cloud], [label], [predicted], ["a", "b", "c"])
    assert drawn == [50]


def test_the_view_keeps_right_and_up_and_puts_the_near_side_to_the_viewer():
    axes = _projected(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    x, y, z = axes[1:] - axes[0]
    assert np.allclose([np.dot(a, b) for a, b in ((x, y), (y, z), (z, x), (x, x), (z, z))], [0, 0, 0, 1, 1])
    assert np.linalg.det([x, y, z]) == pytest.approx(1)  # not mirrored
    assert x[0] > 0.8 and z[1] > 0.8 and z[2] > 0 and y[2] < 0  # x to the right, z up, seen from above and the front


def test_the_picture_has_the_colors_of_truth_and_prediction(tmp_path):
    cloud = np.random.default_rng(0).random((500, 3)) * [1, 1, 0]
    label, palette = np.zeros(500, dtype=np.int64), [(250, 0, 0), (0, 0, 250)]
    draw_cloud_predictions(tmp_path / "p.png", [cloud], [label], [label + 1], ["a", "b"], palette)
    with Image.open(tmp_path / "p.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)[: -picture.height // 4]
    truth, prediction, wrong = np.array_split(pixels, 3, axis=1)
    for part, channel in ((truth, 0), (prediction, 2), (wrong, 0)):
        strong = part[np.ptp(part, axis=2) > 60]
        assert len(strong) > 0.1 * part[..., 0].size and (strong.argmax(1) == channel).all()


def test_wrong_arguments(tmp_path):
    cloud, label, predicted = a_cloud(5)
    with pytest.raises(ValueError, match="positions, truth and prediction of each point, got 5, 4 and 5"):
        draw_cloud_predictions(tmp_path / "p.png", [cloud], [label[1:]], [predicted], ["a", "b", "c"])
    with pytest.raises(ValueError, match="up must be one of x, -x, y, -y, z, -z, got 'w'"):
        draw_cloud_predictions(tmp_path / "p.png", [cloud], [label], [predicted], ["a", "b", "c"], up="w")
    with pytest.raises(ValueError, match="no cloud to draw"):
        draw_cloud_predictions(tmp_path / "p.png", [], [], [], ["a"])
