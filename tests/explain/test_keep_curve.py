from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.explain.keep_curve import draw_keep_curve


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def colored(picture):
    """The number of blue and of orange pixels."""
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return (blue - red > 80).sum(), ((red - blue > 80) & (green - blue > 30)).sum()


def test_a_line_for_each_network(tmp_path):
    whole, partial = [(1.0, 0.8), (0.1, 0.1), (0.5, 0.3)], [(0.1, 0.5), (0.5, 0.7), (1.0, 0.8)]
    draw_keep_curve(tmp_path / "one.png", {"whole": whole})
    draw_keep_curve(tmp_path / "two.png", {"whole": whole, "partial $x_": partial}, title="masks of pixels", chance=0.1)
    one, two = colored(pixels(tmp_path / "one.png")), colored(pixels(tmp_path / "two.png"))
    assert min(one[0], two[0], two[1]) > 200 and one[1] == 0


def test_the_order_of_the_points_does_not_matter(tmp_path):
    curve = [(0.1, 0.2), (0.5, 0.6), (1.0, 0.9)]
    for name, points in (("a", curve), ("b", curve[::-1])):
        draw_keep_curve(tmp_path / f"{name}.png", {"net": points})
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


@pytest.mark.parametrize("curves", [{}, {"net": []}])
def test_nothing_to_draw(tmp_path, curves):
    with pytest.raises(ValueError, match="no points to draw"):
        draw_keep_curve(tmp_path / "a.png", curves)
    assert not (tmp_path / "a.png").exists()
