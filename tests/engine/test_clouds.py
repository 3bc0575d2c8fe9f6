from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from pointmix.engine.clouds import features_of, read_for, seen_by

from pointmix import PointSet
from pointmix.data.clouds.build import PointDataConfig
from pointmix.ops.sampling import farthest_point_sampling

XYZ = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32))


def info(**data) -> dict:
    return {"path": "run", "data": asdict(PointDataConfig(points=8, **data))}


def test_points_are_chosen_as_the_run_does_but_never_the_first() -> None:
    fps = seen_by(info(sampling="fps"))(PointSet.from_points(XYZ))
    assert torch.equal(fps.pos, XYZ[farthest_point_sampling(XYZ, torch.tensor([0, 20]), 8)[0]])
    some = seen_by(info(sampling="first"))(PointSet.from_points(XYZ))
    assert len(some.pos) == 8 and not torch.equal(some.pos, XYZ[:8])
    assert {*map(tuple, some.pos.tolist())} < {*map(tuple, XYZ.tolist())}
    few = seen_by(info(sampling="first"))(PointSet.from_points(XYZ[:5]))
    assert len(few.pos) == 5


def test_all_may_be_kept_and_are_normalized() -> None:
    points = seen_by(info(normalize="unit_sphere"), keep_all=True)(PointSet.from_points(XYZ + 5))
    assert len(points.pos) == 20 and points.pos.norm(dim=1).max() == pytest.approx(1)
    assert points.pos.mean(0).abs().max() < 1e-5


def test_what_a_run_does_not_take_is_refused(tmp_path) -> None:
    np.save(tmp_path / "cloud.npy", np.concatenate([XYZ, XYZ], axis=1))
    assert read_for(info(), tmp_path / "cloud.npy").feat.shape == (20, 0)
    assert read_for(info(features="normal"), tmp_path / "cloud.npy", columns="normal").feat.shape == (20, 3)
    with pytest.raises(ValueError, match="cloud.npy: expected normals of 3 channels, found further columns"):
        read_for(info(features="normal"), tmp_path / "cloud.npy")
    with pytest.raises(ValueError, match="a.png is an image, run takes clouds"):
        read_for(info(), "a.png")
    with pytest.raises(ValueError, match="run is of images and takes no clouds"):
        features_of(info() | {"img_size": 32})
