from __future__ import annotations

import dataclasses
import json

import pytest
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import padded, resolve
from tests.data.detect import toy  # noqa: F401  registers its sources


def test_defaults_of_the_source_come_before_general_ones():
    scenes = resolve(DetectDataConfig())
    assert (scenes.short_side, scenes.hflip, scenes.mean) == (64, 0.0, (0.5, 0.5, 0.5))
    coco = resolve(DetectDataConfig(source="coco", hflip=0.25))
    assert (coco.short_side, coco.max_side, coco.hflip) == (800, 1333, 0.25)
    assert (coco.mean, coco.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert coco.masks is None and coco.val_fraction is None and coco.photometric is False
    gray = resolve(DetectDataConfig(source="coco", in_chans=1))
    assert len(gray.mean) == len(gray.std) == 1


@pytest.mark.parametrize("source", ["scenes", "coco"])
def test_resolving_twice_and_reading_back_from_json_change_nothing(source):
    once = resolve(DetectDataConfig(source=source, train_short_sides=(50, 60), keep_ratio=(0.5, 1.0)))
    assert resolve(once) == once
    settings = json.loads(json.dumps(dataclasses.asdict(once)))
    back = DetectDataConfig(**settings)
    assert dataclasses.replace(resolve(back), train_short_sides=(50, 60), keep_ratio=(0.5, 1.0)) == once
    with pytest.raises(ValueError, match="data.keep_ratio must be"):
        DetectDataConfig(**settings | {"keep_ratio": [0.5, 0.6, 0.7]})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"in_chans": 2}, r"data.in_chans 2: expected 1 \(grayscale\) or 3 \(RGB\)"),
        ({"mean": (0.5, 0.5)}, r"data.mean has 2 values for 3 channels"),
        ({"train_short_sides": ()}, r"data.train_short_sides is empty"),
        ({"classes": ()}, r"data.classes is empty: expected names, each once"),
        ({"classes": ("a", "a")}, r"data.classes a, a: expected names, each once"),
        ({"classes": ("a", "")}, r"expected names, each once"),
        ({"jitter_scale": (2.0, 0.1), "crop_size": (64, 64)}, r"data.jitter_scale 2.0, 0.1: expected two positive"),
        ({"jitter_scale": (0.1, 2.0)}, r"data.jitter_scale without data.crop_size: expected both"),
        ({"crop_size": (64, 64)}, r"data.crop_size without data.jitter_scale: expected both"),
        (
            {"jitter_scale": (0.1, 2.0), "crop_size": (64, 64), "train_short_sides": (4, 5)},
            r"data.train_short_sides with data.jitter_scale",
        ),
        ({"keep_ratio": (0.9, 0.1)}, r"data.keep_ratio \(0.9, 0.1\): expected a fraction"),
        ({"copy_paste": 0.5, "masks": False}, r"data.copy_paste 0.5 needs masks, but data.masks is false"),
        ({"short_side": 100_000, "max_side": 100_000}, r"data.max_side 100000: such an image has .* pixels"),
        ({"jitter_scale": (0.1, 2.0), "crop_size": (64, 10**7)}, r"data.crop_size 64, 10000000: such an image has"),
        ({"copy_paste": 2.0}, r"data.copy_paste must be from 0 to 1, got 2.0"),
        ({"max_pixels": 0}, r"data.max_pixels must be at least 1, got 0"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        resolve(DetectDataConfig(source="toy_objects", **settings))


@pytest.mark.parametrize("settings", [{"root": "x"}, {"classes": ("a",)}, {"test_fraction": 0.1}, {"val_json": "a"}])
def test_scenes_refuse_settings_of_files(settings):
    (key,) = settings
    with pytest.raises(ValueError, match=f"data.{key} is set, but data.source is scenes, which does not use it"):
        resolve(DetectDataConfig(**settings))


def test_padded():
    assert [padded(side, 32) for side in (1, 32, 33, 800, 1333)] == [32, 32, 64, 800, 1344]
