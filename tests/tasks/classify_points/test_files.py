from __future__ import annotations

import numpy as np
import pytest
import torch

from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.ops.sampling import farthest_point_sampling
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_points.files import read_for, sampled_as

XYZ = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))


def config(**data) -> PointDataConfig:
    return PointDataConfig(points=8, **data)


def test_points_are_chosen_as_the_run_does_but_never_the_first() -> None:
    fps = sampled_as(config(sampling="fps"))(PointSet.from_points(XYZ))
    assert torch.equal(fps.pos, XYZ[farthest_point_sampling(XYZ, torch.tensor([0, 20]), 8)[0]])
    some = sampled_as(config(sampling="first"))(PointSet.from_points(XYZ))
    assert len(some.pos) == 8 and not torch.equal(some.pos, XYZ[:8])
    assert {*map(tuple, some.pos.tolist())} < {*map(tuple, XYZ.tolist())}
    few = sampled_as(config(sampling="first"))(PointSet.from_points(XYZ[:5]))
    assert len(few.pos) == 5


def test_all_may_be_kept_and_are_normalized() -> None:
    points = sampled_as(config(normalize="unit_sphere"), keep_all=True)(PointSet.from_points(XYZ + 5))
    assert len(points.pos) == 20 and points.pos.norm(dim=1).max() == pytest.approx(1)
    assert points.pos.mean(0).abs().max() < 1e-5


def test_what_a_run_does_not_take_is_refused(tmp_path) -> None:
    np.save(tmp_path / "cloud.npy", np.concatenate([XYZ, XYZ], axis=1))
    assert read_for(tmp_path / "cloud.npy", config()).feat.shape == (20, 0)
    normals = config(features=("normal",), feature_scale={"normal": 1.0})
    assert read_for(tmp_path / "cloud.npy", normals, columns=["normal"]).feat.shape == (20, 3)
    with pytest.raises(ValueError, match="cloud.npy: it has no feature normal .* it has: further columns"):
        read_for(tmp_path / "cloud.npy", normals)
    with pytest.raises(ValueError, match="a.png is an image, run takes clouds"):
        read_for("a.png", config(), run="run")


def test_the_transform_of_a_trained_network() -> None:
    data = {"source": "shapes", "points": 8, "normalize": "unit_sphere"}
    points = get_task("classify_points").transform({"data": data})(PointSet.from_points(XYZ + 5))
    assert len(points.pos) == 8 and points.pos.norm(dim=1).max() <= 1 + 1e-6
