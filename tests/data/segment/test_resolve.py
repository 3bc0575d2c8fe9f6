from __future__ import annotations

import dataclasses

import pytest

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud, is_sparse, resolve
from pointmix.data.segment.source import SEGMENT_SOURCES, register_segment_source
from tests.data.segment import toy

if "toy_depth" not in SEGMENT_SOURCES:
    register_segment_source("toy_depth", kind="rgbd")(lambda config, split: toy.Toy(config, split))


def config(source="toy_images", **settings):
    return SegmentDataConfig(source=source, **settings)


def test_defaults_of_the_source_come_before_general_ones():
    cfg = resolve(config())
    assert (cfg.crop_size, cfg.photometric) == ((8, 8), False)  # the source's
    assert (cfg.in_chans, cfg.hflip, cfg.repeat, cfg.ignore_index) == (3, 0.5, 1, None)
    assert resolve(config(crop_size=(4, 6))).crop_size == (4, 6)
    cloud = resolve(config("toy_clouds"))
    assert (cloud.features, cloud.up, cloud.normalize, cloud.crop) == (("value",), "y", "center", "none")
    assert cloud.crop_size is cloud.mean is None and cfg.features is cfg.up is None
    assert resolve(config("toy_clouds", features=())).features == ()


@pytest.mark.parametrize("source", ["toy_images", "toy_clouds"])
def test_resolved_settings_resolve_to_themselves(source):
    cfg = resolve(config(source, label_map={7: 0, 9: 1, 3: -1}))
    assert resolve(cfg) == cfg


def test_a_check_of_the_source_sees_what_was_set_not_what_was_filled_in(monkeypatch):
    def check(cfg):
        if cfg.crop_size is not None or cfg.ignore_index is not None:
            raise ValueError("set")

    entry = dataclasses.replace(SEGMENT_SOURCES.find("toy_images"), check=check)
    monkeypatch.setitem(SEGMENT_SOURCES._entries, "toy_images", entry)
    assert resolve(resolve(config())).crop_size == (8, 8)
    with pytest.raises(ValueError, match="set"):
        resolve(config(crop_size=(4, 4)))


def test_channels():
    cfg = resolve(config(in_chans=1))
    assert len(cfg.mean) == len(cfg.std) == 1 and cfg.mean[0] == pytest.approx(0.449, abs=1e-3)
    assert resolve(config(mean=(0.5,))).mean == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"data.std has 2 values for 3 channels"):
        resolve(config(std=(1.0, 2.0)))


@pytest.mark.parametrize(
    "source, settings, message",
    [
        ("toy_clouds", {"crop_size": (4, 4)}, r"data.crop_size \(4, 4\) is a setting of labeled images, .* toy_clouds"),
        ("toy_clouds", {"keep_ratio": 0.5}, "data.keep_ratio 0.5 is a setting of labeled images"),
        ("toy_images", {"grid_size": 0.1}, "data.grid_size 0.1 is a setting of labeled clouds"),
        ("toy_images", {"rgbd": "lattice"}, "data.rgbd 'lattice' is a setting of labeled depth images"),
        ("toy_images", {"intrinsics": (1.0, 1.0, 1.0, 1.0)}, "data.intrinsics .* is a setting of labeled depth images"),
        ("nowhere", {}, "data.source 'nowhere': expected one of "),
        ("toy_images", {"scale_range": (2.0, 0.5)}, "data.scale_range 2.0, 0.5"),
        ("toy_images", {"keep_ratio": (0.5, 0.2)}, "data.keep_ratio"),
        ("toy_clouds", {"scale": (2.0, 0.5)}, "data.scale 2.0, 0.5"),
        ("toy_images", {"in_chans": 2}, "data.in_chans 2: expected 1"),
        ("toy_images", {"classes": ()}, "data.classes is empty"),
        ("toy_images", {"label_map": {1: -2}}, "label 1 the class -2, expected a class from 0, or -1"),
        ("toy_images", {"label_map": {1: 2}, "classes": ("a", "b")}, "label 1 the class 2, .* from 0 to 1"),
        ("toy_images", {"label_map": {"one": 2}}, "data.label_map .*expected a class for each label"),
        ("toy_images", {"label_map": 3}, "data.label_map 3: expected a class for each label"),
        ("toy_images", {"label_map": {1: True}}, "label 1 the class True"),
        ("toy_images", {"label_map": {1: 0}, "reduce_zero_label": True}, "expected one of the two"),
        ("toy_images", {"label_map": {1: 0}, "ignore_index": 3}, "data.ignore_index with data.label_map"),
        ("cityscapes", {"ignore_index": 3}, "data.ignore_index with data.label_map"),
        ("camvid", {"label_starts": (1, 3), "ignore_index": 3}, "data.ignore_index with data.label_starts"),
        ("toy_clouds", {"feature_scale": {"rgb": 0.0}}, "data.feature_scale.rgb must be above 0, got 0.0"),
        ("toy_images", {"crop_size": (40000, 40000)}, "data.crop_size 40000, 40000"),
    ],
)
def test_wrong_settings_are_named(source, settings, message):
    with pytest.raises(ValueError, match=message) as e:
        resolve(config(source, **settings))
    assert "\n" not in str(e.value)


def test_depth_images_run_as_images_or_as_clouds_by_one_flag():
    both = {"grid_size": 0.01, "crop_size": (4, 4), "intrinsics": (1.0, 1.0, 0.0, 0.0)}
    for rgbd in ("image", "lattice", "cloud"):
        cfg = resolve(config("toy_depth", rgbd=rgbd, **both))
        assert is_cloud(cfg) == (rgbd == "cloud") and is_sparse(cfg) == (rgbd == "lattice")
        assert (cfg.grid_size, cfg.crop_size, cfg.in_chans, cfg.features) == (0.01, (4, 4), 3, ("rgb",))
        assert resolve(cfg) == cfg


@pytest.mark.parametrize("keep, sparse", [(1.0, False), (0.5, True), ((0.5, 1.0), True), ((1.0, 1.0), False)])
def test_images_with_hidden_pixels_are_sparse(keep, sparse):
    assert is_sparse(config(keep_ratio=keep)) == sparse
