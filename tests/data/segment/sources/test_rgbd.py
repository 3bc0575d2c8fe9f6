"""Color, depth and label images, and the clouds that they make."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.segment.images.rgbd import as_labeled_cloud
from pointmix.data.segment.images.transforms import eval_transform
from pointmix.data.segment.source import SEGMENT_SOURCES
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.pointset import PointSet
from tests.data.segment.images.files import SIZE, image_config, open_source, stripes, write_image, write_mask

CAMERA = (5.0, 6.0, 3.5, 2.5)
RULES = {"classes": ("table", "object"), "label_starts": (1, 20)}
LABEL = np.array([0, 1, 19, 20, 61], dtype=np.uint8)[stripes(5)]
DEPTH = np.where(LABEL == 0, 0, 500 + np.arange(48).reshape(SIZE) * 10).astype(np.uint16)


def write_scene(root, name="00"):
    write_image(root / f"{name}_rgb.png")
    Image.fromarray(DEPTH).save(root / f"{name}_depth.png")
    write_mask(root / f"{name}_label.png", LABEL)


@pytest.fixture
def root(tmp_path):
    for split in ("learn", "test"):
        (tmp_path / split).mkdir()
        write_scene(tmp_path / split)
    return tmp_path


def test_color_depth_and_labels(root):
    source = open_source("rgbd", "train", root, intrinsics=CAMERA, **RULES)
    assert len(source) == 1 and source.classes == ("table", "object") and open_source("rgbd", "val", root) is None
    sample = source.read(0)
    assert (sample.label == np.array([-1, 0, 0, 1, 1])[stripes(5)]).all() and sample.intrinsics == CAMERA
    np.testing.assert_allclose(sample.depth, DEPTH / 1000, rtol=1e-6)
    half = open_source("rgbd", "train", root, depth_scale=500.0, **RULES).read(0)
    np.testing.assert_allclose(half.depth, DEPTH / 500, rtol=1e-6)


def test_depth_in_meters_with_values_that_are_not_finite(root):
    meters = (DEPTH / 1000).astype(np.float32)
    meters[0, 1:4] = np.nan, np.inf, -1
    (root / "learn/00_depth.png").unlink()
    np.save(root / "learn/00_depth.npy", meters)
    depth = open_source("rgbd", "train", root, **RULES).read(0).depth
    assert (depth[0, 1:4] == 0).all() and depth[1, 1] == meters[1, 1]


def test_the_cloud_of_an_image(root):
    sample = open_source("rgbd", "train", root, intrinsics=CAMERA, **RULES).read(0)
    cloud = as_labeled_cloud(sample)
    expected = PointSet.from_rgbd(sample.image, DEPTH, CAMERA)
    np.testing.assert_allclose(cloud.pos, expected.pos, rtol=1e-6)
    assert cloud.features["rgb"].dtype == np.uint8
    np.testing.assert_allclose(cloud.features["rgb"] / 255, expected.feat, rtol=1e-6)
    assert (cloud.label == sample.label[DEPTH > 0]).all() and cloud.category is None


def test_a_cloud_needs_a_camera_and_a_labeled_point(root):
    config = image_config("rgbd", root, rgbd="cloud", **RULES)
    with pytest.raises(ValueError, match="data.intrinsics"):
        SEGMENT_SOURCES.find("rgbd").check(config)
    with pytest.raises(ValueError, match="data.keep_ratio 0.5 is for images, data.rgbd is cloud"):
        SEGMENT_SOURCES.find("rgbd").check(replace(config, intrinsics=CAMERA, keep_ratio=0.5))
    with pytest.raises(ValueError, match="data.intrinsics"):
        as_labeled_cloud(open_source("rgbd", "train", root, **RULES).read(0))
    with pytest.raises(UnreadableSample, match="cannot make a cloud of it: from_rgbd: the center of the intrinsics"):
        as_labeled_cloud(open_source("rgbd", "train", root, intrinsics=(5.0, 5.0, 40.0, 2.0), **RULES).read(0))
    write_mask(root / "learn/00_label.png", np.where(LABEL == 0, 1, 0).astype(np.uint8))
    with pytest.raises(UnreadableSample, match="has a label"):
        as_labeled_cloud(open_source("rgbd", "train", root, intrinsics=CAMERA, **RULES).read(0))
    Image.fromarray(DEPTH * 0).save(root / "learn/00_depth.png")
    with pytest.raises(UnreadableSample, match="has a depth"):
        as_labeled_cloud(open_source("rgbd", "train", root, intrinsics=CAMERA, **RULES).read(0))


def test_bad_files(root):
    def read():
        return open_source("rgbd", "train", root, **RULES).read(0)

    Image.fromarray(DEPTH.T.copy()).save(root / "learn/00_depth.png")
    with pytest.raises(BadMask, match="00_depth.png is 8x6, the image is 6x8"):
        read()
    (root / "learn/00_depth.png").unlink()
    np.save(root / "learn/00_depth.npy", DEPTH > 0)
    with pytest.raises(UnreadableSample, match="cannot use depth .*00_depth.npy: .*integers or floats, got bool"):
        read()
    (root / "learn/00_depth.npy").unlink()
    write_image(root / "learn/00_depth.png")
    with pytest.raises(UnreadableSample, match="00_depth.png: expected a depth image of one channel"):
        read()
    write_image(root / "learn/01_rgb.png")
    with pytest.raises(ValueError, match="2 files are missing: 01_depth, 01_label"):
        read()
    with pytest.raises(ValueError, match="class names are not known"):
        open_source("rgbd", "test", root)
    with pytest.raises(FileNotFoundError, match="train or learn"):
        open_source("rgbd", "train", root / "learn", **RULES)
    (root / "empty/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="NAME_rgb.png"):
        open_source("rgbd", "train", root / "empty", **RULES)


def test_real_tabletop_scenes():
    if "POINTMIX_DATA" not in os.environ:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    settings = {"intrinsics": (525.0, 525.0, 319.5, 239.5), "depth_mean": 0.8, "depth_std": 0.25, **RULES}
    root = Path(os.environ["POINTMIX_DATA"], "mosd_rgbd")
    source = open_source("rgbd", "train", root, **settings)
    assert (len(source), len(open_source("rgbd", "test", root, **settings))) == (45, 65)
    sample = source.read(0)
    assert ((sample.depth > 0) == (sample.label >= 0)).all() and 0.5 < sample.depth[sample.depth > 0].mean() < 1.5
    cloud = as_labeled_cloud(sample)
    # the table is a plane, and objects stand on the camera's side of it
    table = cloud.pos[cloud.label == 0]
    center = table.mean(0)
    normal = np.linalg.svd((table - center)[::50], full_matrices=False)[2][2]
    height = (cloud.pos - center) @ (normal * -np.sign(normal[2]))
    assert abs(height[cloud.label == 0]).mean() < 0.02 < height[cloud.label == 1].mean()
    lattice = eval_transform(image_config("rgbd", root, rgbd="lattice", **settings))(sample)
    whole = eval_transform(image_config("rgbd", root, **settings))(sample)
    assert len(lattice.labels) == len(cloud.label) and (lattice.labels.numpy() == cloud.label).all()
    visible = torch.from_numpy(sample.depth > 0).flatten()
    assert (whole.points.feat[visible] == lattice.points.feat).all() and whole.points.feat.shape[1] == 4
    assert abs(lattice.points.feat[:, 3]).max() < 4
