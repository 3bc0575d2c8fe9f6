from __future__ import annotations

import numpy as np
import torch

from pointmix.data.dataset import seed_all
from pointmix.data.images.photometric import PhotometricDistortion


def test_photometric_distortion_has_mmsegs_ranges():
    gray = torch.full((1, 1, 1), 0.4)
    values = []
    for seed in range(3000):
        seed_all(seed)
        values.append(float(PhotometricDistortion()(gray)))
    values = np.array(values)
    assert abs(np.mean(np.isclose(values, 0.4)) - 0.25) < 0.03  # neither brightness nor contrast
    delta = 32 / 255
    assert 0.5 * (0.4 - delta) <= values.min() < 0.16 and 0.75 < values.max() <= 1.5 * (0.4 + delta)


def test_photometric_distortion_changes_hue_by_a_tenth_of_a_turn_at_most():
    image = torch.tensor([0.6, 0.2, 0.2])[:, None, None]
    angles = []
    for seed in range(500):
        seed_all(seed)
        red, green, blue = PhotometricDistortion()(image).flatten().tolist()
        assert min(red, green, blue) >= 0 and max(red, green, blue) <= 1
        angles.append(np.degrees(np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue)))
    # the six-sided hue of HSV differs from the angle by a degree or so
    assert 30 < max(angles) < 38 and -38 < min(angles) < -30
