from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pointmix.data.detect.splits import build_detect_test
from pointmix.tasks.detect import pictures
from pointmix.tasks.detect.pictures import colors_of, draw_test_images
from tests.data.detect import toy
from tests.tasks.detect.test_evaluation import INFO, Truthful, data


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_objects_and_detections_are_drawn_in_pixels_of_the_image(keep, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(pictures, "draw_detections", lambda *args, **names: given.append((args, names)))
    cfg = dataclasses.replace(data(), keep_ratio=keep, mask="pixels")
    model = Truthful()
    model.weight = torch.nn.Parameter(torch.ones(1))
    draw_test_images(tmp_path / "p.png", model, build_detect_test(cfg)[0], cfg, INFO)
    ((path, images, truths, predictions, classes), names) = given[0]
    assert (
        path == tmp_path / "p.png" and classes == ["a", "b", "c"] and names == {"names": [f"{i}.png" for i in range(4)]}
    )
    for i, (image, truth, found) in enumerate(zip(images, truths, predictions, strict=True)):
        sample = toy.Toy("test").read(i)
        assert image.shape == (*toy.SIZES[i % 2], 3)
        assert np.isnan(image).mean() == pytest.approx(1 - keep, abs=0.2)
        seen = ~np.isnan(image)
        assert (image[seen] == (np.asarray(sample.image) / 255)[seen]).all()
        assert found.boxes == pytest.approx(truth.boxes, abs=1e-4) and (truth.boxes == sample.objects.boxes).all()
        assert found.scores.tolist() == pytest.approx([0.9, 0.75, 0.5]) and truth.scores is None
        for one, other in zip(list(truth.masks), list(found.masks), strict=True):
            assert one.dtype == bool and one.shape == image.shape[:2] and (one ^ other).sum() <= 4  # corners


def test_a_picture_is_written(tmp_path):
    model = Truthful()
    model.weight = torch.nn.Parameter(torch.ones(1))
    draw_test_images(tmp_path / "p.png", model, build_detect_test(data())[0], data(), INFO)
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_gray_images_have_three_colors():
    sample = toy.Toy("test").read(0)
    visible = torch.zeros(10, 15, dtype=torch.bool)
    visible[:5] = True
    colors = colors_of(sample.image.convert("L"), visible)
    assert colors.shape == (20, 30, 3) and np.isnan(colors[10:]).all() and not np.isnan(colors[:10]).any()
