"""Generated scenes of digits."""

from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.images.sources.digits import open_digits
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.source import SEGMENT_SOURCES
from pointmix.data.segment.sources.scenes import SIDE, open_scenes


@pytest.fixture(scope="module")
def train():
    return open_scenes(SegmentDataConfig(), "train")


def test_the_same_index_gives_the_same_scene(train):
    once, again, other = train.read(3), open_scenes(SegmentDataConfig(), "train").read(3), train.read(4)
    assert (np.asarray(once.image) == np.asarray(again.image)).all() and (once.label == again.label).all()
    assert (np.asarray(once.image) != np.asarray(other.image)).any()


def test_labels_are_where_the_digits_are(train):
    for index in range(50):
        scene = train.read(index)
        assert scene.image.size == (SIDE, SIDE) and scene.image.mode == "RGB"
        pixels, label = np.asarray(scene.image).mean(2), scene.label
        assert label.shape == (SIDE, SIDE) and label.min() == 0 and label.max() <= 10 and label.any()
        assert ((scene.instance > 0) == (label > 0)).all()
        for number in np.unique(scene.instance[scene.instance > 0]):
            inside = scene.instance == number
            assert len(np.unique(label[inside])) == 1
            contrast = abs(pixels[inside].mean() - pixels[label == 0].mean())
            assert contrast > 0.2 * 255, (index, number)


def test_every_class_has_its_share(train):
    share = np.bincount(np.concatenate([train.read(i).label.ravel() for i in range(300)]), minlength=11)
    share = share / share.sum()
    assert 0.7 < share[0] < 0.9 and share[1:].min() > 0.005


def test_test_scenes_show_other_digits(train):
    test = open_scenes(SegmentDataConfig(), "test")
    assert (len(train.digits), len(test.digits)) == (1198, 599)
    assert not {d.tobytes() for d in train.digits} & {d.tobytes() for d in test.digits}
    assert (test.targets == open_digits("test").targets).all()
    assert open_scenes(SegmentDataConfig(), "val") is None


@pytest.mark.parametrize("settings", [{"root": "x"}, {"classes": ("a",)}, {"label_starts": (1,)}])
def test_settings_of_files_are_refused(settings):
    for source in ("scenes", "scenes3d"):
        with pytest.raises(ValueError, match=f"data.{next(iter(settings))} is set, but data.source is {source}, which"):
            SEGMENT_SOURCES.find(source).check(SegmentDataConfig(source=source, **settings))
