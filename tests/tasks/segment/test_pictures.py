from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import resolve
from pointmix.data.segment.splits import build_segments_test
from pointmix.tasks.segment.inference.choose import choose_infer
from pointmix.tasks.segment.pictures import color_image, draw_predictions, label_map
from tests.data.segment import toy
from tests.tasks.segment.standin import StandIn

CFG = resolve(SegmentDataConfig(source="toy_images", mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3)))


def test_pixels_are_where_they_were():
    image, mask = torch.rand(3, 4, 6), torch.rand(4, 6) < 0.5
    whole = PointSet.from_image(image, mean=CFG.mean, std=CFG.std)
    np.testing.assert_allclose(color_image(whole, CFG), image.permute(1, 2, 0), atol=1e-6)
    labels = torch.randint(0, 300, (4, 6))
    assert (label_map(whole, labels.flatten()) == labels.numpy()).all()
    partial = PointSet.from_image(image, mask, mean=CFG.mean, std=CFG.std)
    assert (np.isnan(color_image(partial, CFG)).all(2) == ~mask.numpy()).all()
    assert (label_map(partial, labels[mask]) == np.where(mask, labels, -1)).all()


def test_depth_is_left_out_and_gray_becomes_color():
    depth = PointSet.from_image(torch.rand(4, 4, 6))
    assert color_image(depth, CFG).shape == (4, 6, 3)
    gray = resolve(SegmentDataConfig(source="toy_images", in_chans=1))
    picture = color_image(PointSet.from_image(torch.rand(1, 4, 6)), gray)
    assert picture.shape == (4, 6, 3) and (picture[..., 0] == picture[..., 2]).all()


@pytest.mark.parametrize("settings", [{}, {"keep_ratio": 0.5, "mask": "pixels"}, {"source": "toy_clouds"}])
def test_a_picture_is_drawn(tmp_path, monkeypatch, settings):
    settings = {"source": "toy_images", "feature_scale": {"value": 1.0}} | settings
    if settings["source"] == "toy_images":
        del settings["feature_scale"]
    cfg = resolve(SegmentDataConfig(**settings))
    test, source = build_segments_test(cfg)
    monkeypatch.setattr(type(source), "read", _damaged(type(source).read))
    info = {"classes": list(toy.CLASSES), "palette": None, "categories": None}
    is_cloud = settings["source"] == "toy_clouds"
    model = StandIn(1 if is_cloud else 3, 3, dims=3 if is_cloud else 2)
    draw_predictions(tmp_path / "p.png", model, choose_infer(cfg), test, cfg, info)
    assert min(Image.open(tmp_path / "p.png").size) > 200


def _damaged(read):
    def reading(self, index):
        if index == 1:
            raise toy.UnreadableSample("torn")
        return read(self, index)

    return reading
