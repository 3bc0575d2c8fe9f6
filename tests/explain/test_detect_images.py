from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.detect_images import CROWDED, SIDE, Drawn, overlay, paint

NONE = Drawn(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0), [])
RED, GREEN = (200, 0, 0), (0, 200, 0)
BLACK = Image.new("RGB", (40, 20))


def an_object(box=(10, 5, 20, 15), label=0, score=None, mask=None, **more):
    scores = None if score is None else np.array([score])
    return Drawn(np.array([box], dtype=np.float64), np.array([label]), scores, None if mask is None else [mask], **more)


def pixels(picture):
    return np.asarray(picture).astype(int)


def is_color(picture, color):
    return (np.abs(pixels(picture) - color) <= 1).all(2)


@pytest.mark.parametrize("scale", [1, 3, 0.5])
def test_the_outline_of_a_box_is_its_first_and_last_pixels(scale):
    image = Image.new("RGB", (160, 100))
    found = is_color(paint(image, an_object((20, 40, 120, 80)), ["a", "b"], [RED, GREEN], scale), RED)
    assert found.shape == (100 * scale, 160 * scale)
    below = found[int(60 * scale) :]  # the name is above
    rows, columns = below.any(1).nonzero()[0] + int(60 * scale), below.any(0).nonzero()[0]
    assert (rows[-1], columns[0], columns[-1]) == (80 * scale - 1, 20 * scale, 120 * scale - 1)


@pytest.mark.parametrize("box", [(-5, -5, 50, 30), (39, 19, 40, 20), (30, 10, 30, 10), (-9, 3, -2, 8), (5, 5, 1e9, 9)])
def test_boxes_at_and_beyond_the_border(box):
    picture = paint(BLACK, an_object(box, label=1), ["a", "b"], [RED, GREEN], 4)
    assert picture.size == (160, 80) and is_color(picture, GREEN).any()


def test_masks_are_translucent_with_an_outline():
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:50] = True
    image = Image.new("RGB", (60, 40), (100, 100, 100))
    shown = pixels(paint(image, an_object((20, 10, 50, 30), mask=mask), ["a", "b"], [RED, GREEN], 2))
    assert shown[40, 70].tolist() == [140, 60, 60]  # 0.4 of the color
    assert shown[60 - 1, 70].tolist() == list(RED) and shown[62, 70].tolist() == [100, 100, 100]
    mask[:] = False  # an empty mask is none
    paint(image, an_object((20, 10, 50, 30), mask=mask), ["a", "b"], None, 2)


def test_masks_are_asked_for_one_at_a_time():
    alive = []

    def masks():
        for i in range(3):
            mask = np.zeros((20, 40), dtype=bool)
            mask[:, i] = True
            alive.append(i)
            yield mask

    objects = Drawn(np.tile([0.0, 0, 10, 10], (3, 1)), np.arange(3) % 2, np.ones(3), masks())
    paint(BLACK, objects, ["a", "b"], None, 1)
    assert alive == [0, 1, 2]


def test_names_and_scores_are_beside_their_box_and_do_not_cover_each_other():
    image = Image.new("RGB", (300, 200))
    boxes = np.array([[20.0, 50, 200, 150], [20, 50, 200, 150], [20, 50, 200, 150], [20, 50, 200, 150]])
    objects = Drawn(boxes, np.array([0, 1, 2, 3]), np.array([0.9, 0.8, 0.7, 0.6]))
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 0, 200)]
    shown = paint(image, objects, ["a", "b", "c", "d"], colors, 1)
    places = [is_color(shown, color).sum(1) > 6 for color in colors]  # rows with the plate of a text
    assert (
        places[0][35:50].all() and places[1][52:60].all() and places[2][152:160].all() and not places[3][53:140].any()
    )


def test_small_objects_in_a_crowd_have_no_text():
    def plates(number):
        x = 4.0 + 20 * (np.arange(number) % 20)
        y = 20.0 + 40 * (np.arange(number) // 20)
        objects = Drawn(np.stack([x, y, x + 8, y + 8], 1), np.zeros(number, dtype=np.int64), np.full(number, 0.5))
        return is_color(paint(Image.new("RGB", (420, 200)), objects, ["a", "b"], [RED, GREEN], 1), RED).sum() / number

    assert plates(CROWDED) > plates(CROWDED + 1) + 50


def test_objects_of_a_single_class_have_colors_of_their_own():
    objects = Drawn(np.array([[0.0, 0, 9, 9], [20, 0, 29, 9]]), np.zeros(2, dtype=np.int64))
    shown = pixels(paint(BLACK, objects, ["a"], None, 1))
    assert shown[0, 5].any() and shown[0, 25].any() and (shown[0, 5] != shown[0, 25]).any()
    own = pixels(paint(BLACK, objects, ["a"], [RED], 1))
    assert own[0, 5].tolist() == own[0, 25].tolist() == list(RED)


def test_crowds_and_scores_are_written():
    def ink(**more):
        picture = paint(Image.new("RGB", (400, 100)), an_object((20, 50, 90, 90), **more), ["a", "b"], [RED, GREEN], 1)
        return is_color(picture, RED)[35:48].any(0).sum()  # width of the plate

    crowd = np.array([True])
    assert ink() < ink(score=0.25) < ink(crowd=crowd)


def test_an_overlay_is_enlarged_and_has_a_legend():
    sheet = overlay(Image.new("L", (64, 48), 50), an_object(label=1, score=0.5), ["a", "b"], [RED, GREEN])
    assert sheet.width == SIDE and 480 < sheet.height < 600
    assert is_color(sheet, GREEN)[480:].any() and not is_color(sheet, RED).any()
    large = Image.new("RGB", (1000, 700))
    assert overlay(large, NONE, ["a", "b"]).size == (1000, 700)  # without objects no legend
    assert overlay(large, an_object(), ["a"]).size == (1000, 700)
