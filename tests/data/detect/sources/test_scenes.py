from __future__ import annotations

import numpy as np

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.sources.scenes import open_digit_scenes
from pointmix.data.detect.splits import build_detect
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sources.scenes import open_scenes


def test_objects_are_the_digits_of_the_segmentation_scenes():
    source, scenes = open_digit_scenes(DetectDataConfig(), "train"), open_scenes(SegmentDataConfig(), "train")
    assert len(source) == 5000 and open_digit_scenes(DetectDataConfig(), "val") is None
    for index in range(20):
        read, scene = source.read(index), scenes.read(index)
        assert read.image.tobytes() == scene.image.tobytes() and source.size(index) == (64, 64)
        masks = rle.decode(read.objects.masks, (64, 64))
        drawn = np.zeros((64, 64), np.int64)
        for mask, label in zip(masks, read.objects.labels, strict=True):
            drawn[mask == 1] = label + 1
        assert (drawn == scene.label).all() and len(masks) == len(np.unique(scene.instance)) - 1
        assert (read.objects.boxes == rle.boxes(read.objects.masks)).all() and not read.objects.crowd.any()
        assert (read.objects.area == masks.sum((1, 2))).all() and (read.objects.area > 0).all()


def test_the_default_data():
    data = build_detect(DetectDataConfig(), batch_size=8, seed=0)
    assert [len(data.train.samples), len(data.val), len(data.test)] == [4500, 500, 300]
    assert data.classes == list("0123456789") and data.has_masks
    batch = next(iter(data.train))
    assert batch.points.to_image().shape == (8, 3, 64, 64) and all(len(target.labels) for target in batch.targets)
