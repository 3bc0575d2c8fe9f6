from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from pointmix.explain.class_colors import add_legend, class_colors, shown_classes


@pytest.mark.parametrize("number", [1, 12, 13, 150])
def test_colors_of_any_number_of_classes_differ(number):
    colors = class_colors(number)
    assert colors.shape == (number, 3) and colors.dtype == np.uint8
    away = np.abs(colors[:, None].astype(int) - colors).sum(2) + 1000 * np.eye(number, dtype=int)
    assert away.min() >= 17  # at least a step of the lattice of colors
    assert (class_colors(number + 20)[:number] == colors).all()  # more classes do not change the first ones


def test_the_palette_of_the_data_is_used():
    assert class_colors(2, [(1, 2, 3), (4, 5, 6), (7, 8, 9)]).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError, match="the palette has 1 color for 2 classes"):
        class_colors(2, [(1, 2, 3)])


def test_the_most_frequent_classes_are_shown_in_their_order():
    labels = [np.repeat(np.arange(50), np.arange(50) + 1), np.array([-1, -1, 49])]
    shown, left = shown_classes(labels, 60)
    assert shown == list(range(10, 50)) and left == 10
    assert shown_classes([np.array([3, 1])], 4) == ([1, 3], 0)
    assert shown_classes([np.array([-1])], 4) == ([], 0)


def test_a_legend_names_the_classes_that_occur():
    figure = Figure(figsize=(4, 3), layout="constrained")
    names = ["road $1", "sky", "car"]
    lines = add_legend(figure, [np.array([[0, 2], [-1, 2]])], names, class_colors(3), more=[("no label", "0.8")])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["road $1", "car", "no label"] and lines == 1
    many = add_legend(figure, [np.arange(30)], [f"a long name of class {i}" for i in range(30)], class_colors(30))
    assert many >= 15
