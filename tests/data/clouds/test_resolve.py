from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
import torch
from jsonargparse import ArgumentParser

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.resolve import resolve
from pointmix.data.clouds.splits import build_points
from pointmix.data.clouds.transforms import train_transform
from pointmix.io.mesh import SURFACE_POINTS
from pointmix.pointset import PointSet

CALL = {"batch_size": 4, "eval_batch_size": 4, "seed": 0}
PLAIN = {"scale": (1.0, 1.0), "translate": 0.0, "shuffle": False}


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"source": "shapenet"},
            "data.source 'shapenet': expected one of folder, modelnet40, scanobjectnn, shapes, or",
        ),
        ({"source": "modelnet40"}, "data.root is not set; expected the folder of modelnet40, see datasets/modelnet40"),
        ({"variant": "pb_t25"}, "data.variant must be one of obj_only, obj_bg, pb_t50_rs, got 'pb_t25'"),
        ({"sampling": "last"}, "data.sampling must be one of first, random, fps, got 'last'"),
        ({"features": "rgb"}, "data.features must be a list, got 'rgb'"),
        ({"features": ("rgb", "rgb")}, "data.features rgb, rgb: expected each name once"),
        ({"feature_scale": {"rgb": 0}}, "data.feature_scale.rgb must be above 0, got 0"),
        ({"normalize": "yes"}, "data.normalize must be one of none, center, unit_sphere, unit_cube, got 'yes'"),
        ({"rotate_axis": "y"}, "data.rotate_axis must be one of up, any, got 'y'"),
        ({"up": "w"}, "data.up must be one of x, y, z, got 'w'"),
        ({"max_points": 9}, "data.max_points 9 with data.points 1024; set points to null"),
        ({"fold": (3, 2)}, r"data.fold \(3, 2\): expected k, n with k from 1 to n"),
        ({"labels": "a.csv"}, "data.labels is set, but data.source is shapes, which does not use it"),
        ({"points": 0}, "data.points must be at least 1, got 0"),
        ({"limit": 0}, "data.limit must be at least 1, got 0"),
        ({"workers": -1}, "data.workers must be at least 0, got -1"),
        ({"rotate": 200.0}, "data.rotate must be from 0 to 180, got 200.0"),
        ({"translate": float("nan")}, "data.translate must be at least 0, got nan"),
        ({"jitter": -0.1}, "data.jitter must be at least 0, got -0.1"),
        ({"dropout_ratio": 1.0}, "data.dropout_ratio must be at least 0 and below 1, got 1.0"),
        ({"val_fraction": 1.0}, "data.val_fraction must be at least 0 and below 1, got 1.0"),
        ({"scale": (1.5, 0.5)}, "data.scale 1.5, 0.5: expected two positive numbers, the smaller first"),
        ({"classes": ("a",)}, "data.classes is set, but data.source is shapes"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_points(PointDataConfig(**settings), **CALL)
    assert "\n" not in str(caught.value)


def test_meshes_become_as_many_points_as_elsewhere():
    assert PointDataConfig().surface_points == SURFACE_POINTS


def test_all_augmentation_off_is_none_at_all():
    cfg = resolve(PointDataConfig(**PLAIN))
    points = PointSet.from_points(torch.rand(5, 3))
    assert train_transform(cfg)(points) is points


def test_every_setting_has_its_line_in_help_and_can_be_given():
    parser = ArgumentParser()
    parser.add_argument("--data", type=PointDataConfig, default=PointDataConfig())
    parsed = parser.parse_args(["--data.source=modelnet40", "--data.scale=[0.8,1.2]", "--data.classes=[a,b]"])
    data = parser.instantiate(parsed).data
    assert data.scale == (0.8, 1.2) and data.classes == ("a", "b")
    documented = set(re.findall(r"^    +(\w+): ", inspect.getdoc(PointDataConfig), flags=re.M))
    assert documented >= {field.name for field in dataclasses.fields(PointDataConfig)}
    filled = {"sampling": "first", "normalize": "none", "up": "y"}
    assert resolve(PointDataConfig()) == dataclasses.replace(PointDataConfig(), **filled)
