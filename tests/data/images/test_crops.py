from __future__ import annotations

import pytest
import torch

from pointmix.data.images.crops import Crop, random_crop, resized


@pytest.mark.parametrize("scale", [0.4, 0.5, 0.8, 1.5, 2.0, 3.0])
def test_nearest_labels_are_not_shifted_against_a_bilinear_image(scale):
    for edge in range(20, 40):
        step = torch.zeros(1, 60, 60)
        step[..., edge:] = 1
        side = round(60 * scale)
        image, label = resized(step, side, side), resized(step.long(), side, side, nearest=True)
        clear = (image - 0.5).abs() > 0.01  # not on the edge itself
        assert (label[clear] == (image[clear] > 0.5)).all()


def test_a_crop_of_a_scaled_image():
    for _ in range(20):
        crop = random_crop((20, 30), (16, 16), 2.0)
        assert (crop.height, crop.width, crop.rows, crop.cols) == (8, 8, 16, 16)
        assert 0 <= crop.top <= 12 and 0 <= crop.left <= 22
    small = random_crop((20, 30), (16, 16), 0.5)
    assert (small.top, small.height, small.rows) == (0, 20, 10) and (small.width, small.cols) == (30, 15)
    values = torch.arange(600).view(20, 30)
    assert torch.equal(Crop(2, 3, 4, 5, 8, 10).of(values), values[2:6, 3:8])
