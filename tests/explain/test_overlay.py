from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.class_colors import class_colors
from pointmix.explain.overlay import overlay


def test_pixels_keep_their_place_and_show_the_color_of_their_label():
    label = np.zeros((500, 600), dtype=np.int64)
    label[:200], label[:, :100] = 1, -1
    colors = np.array([[200, 0, 0], [0, 200, 0]], dtype=np.uint8)
    image = Image.new("RGB", (600, 500), (128, 128, 128))
    sheet = np.asarray(overlay(image, label, ["a", "b"], colors)).astype(int)
    assert sheet.shape[1] == 600 and 500 < sheet.shape[0] < 600  # the legend is below
    for value, channel in ((1, 1), (0, 0)):
        where = np.argwhere(label == value)
        pixels = sheet[where[:, 0], where[:, 1]]
        assert (pixels == pixels[0]).all() and pixels[0].argmax() == channel and np.ptp(pixels[0]) == 120
    none = sheet[400, 50]
    assert np.ptp(none) == 0 and none[0] > 200  # pale gray


def test_small_images_are_enlarged_by_a_whole_number():
    label = np.arange(20).reshape(4, 5) % 3
    sheet = overlay(Image.new("L", (5, 4)), label, ["a", "b", "c"], class_colors(3))
    assert sheet.width == 420
    pixels = np.asarray(sheet)[: 4 * 84].reshape(4, 84, 5, 84, 3)
    assert (pixels == pixels[:, :1, :, :1]).all()


@pytest.mark.parametrize("classes", [1, 200])
def test_any_number_of_classes(classes):
    label = np.arange(3000).reshape(50, 60) % classes
    image = Image.new("RGB", (60, 50))
    assert overlay(image, label, [f"class number {i}" for i in range(classes)], class_colors(classes)).height > 50
