"""Point sets from and to the objects of other libraries."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from pointmix import PointSet
from pointmix.layouts.cloud import Cloud

XYZ = np.random.default_rng(0).random((8, 3))
POS, X = torch.from_numpy(XYZ).float(), torch.arange(16.0).view(8, 2)
BATCH, PTR = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2]), torch.tensor([0, 3, 4, 8])


def test_a_batch_vector():
    for batch in (BATCH, BATCH.numpy(), BATCH.tolist(), BATCH.int()):
        points = PointSet.from_points(POS, X, batch=batch)
        assert torch.equal(points.ptr, PTR) and torch.equal(points.batch, BATCH)
    for batch, message in {
        (0, 0, 0, 0, 0, 1, 0, 1): "batch must begin at 0 and rise by 0 or 1",
        (1,) * 8: "batch must begin at 0",
        (0, 0, 0, 0, 0, 0, 2, 2): "none empty",
        (0, 0): r"batch is \(2,\) torch.int64, expected \(8,\) whole numbers",
        (0.5,) * 8: r"batch is \(8,\) torch.float32, expected",
    }.items():
        with pytest.raises(ValueError, match=message):
            PointSet.from_points(POS, X, batch=batch)


def test_from_data():
    points = PointSet.from_data(SimpleNamespace(pos=POS, x=X))
    assert torch.equal(points.pos, POS) and torch.equal(points.feat, X) and points.ptr.tolist() == [0, 8]
    for parts in ({"ptr": PTR}, {"batch": BATCH}, {"ptr": PTR, "batch": BATCH}):
        points = PointSet.from_data(SimpleNamespace(pos=POS, x=None, normal=POS, intensity=X[:, 0], **parts))
        assert torch.equal(points.ptr, PTR) and points.feat.shape == (8, 0)
    data = SimpleNamespace(pos=POS.double() + 5e6, normal=POS, intensity=X[:, 0])
    points = PointSet.from_data(data, features=("intensity", "normal"))
    assert torch.equal(points.feat, torch.cat([X[:, :1], POS], dim=1)) and points.pos.dtype == torch.float64
    for bad, message in (
        (SimpleNamespace(x=X), r"SimpleNamespace.pos is NoneType, expected a tensor \(N, D\)"),
        (SimpleNamespace(pos=POS, x=X[:3]), r"feature x is \(3, 2\), expected a tensor with 8 rows"),
        (SimpleNamespace(pos=POS * torch.nan), "NaN or infinite values at 8 of 8 points, the first at 0"),
        (SimpleNamespace(pos=POS, ptr=torch.tensor([0, 9])), "ptr must rise from 0 to 8"),
    ):
        with pytest.raises(ValueError, match=message):
            PointSet.from_data(bad)
    with pytest.raises(ValueError, match="feature time is NoneType, expected a tensor with 8 rows"):
        PointSet.from_data(data, features=("time",))


def test_to_data(monkeypatch):
    geometric = ModuleType("torch_geometric.data")
    geometric.Data = SimpleNamespace
    geometric.Batch = SimpleNamespace(from_data_list=list)
    monkeypatch.setitem(sys.modules, "torch_geometric", ModuleType("torch_geometric"))
    monkeypatch.setitem(sys.modules, "torch_geometric.data", geometric)
    parts = PointSet(POS, X, PTR).to_data()
    assert [len(part.pos) for part in parts] == [3, 1, 4] and torch.equal(torch.cat([p.x for p in parts]), X)
    alone = PointSet.from_points(POS).to_data()
    assert torch.equal(alone.pos, POS) and alone.x is None
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torch-geometric"):
        PointSet.from_points(POS).to_data()


def test_there_and_back_with_pytorch_geometric():
    pytest.importorskip("torch_geometric", reason="PyTorch Geometric is not installed")
    points = PointSet(POS, X, PTR)
    again = PointSet.from_data(points.to_data())
    assert torch.equal(again.pos, POS) and torch.equal(again.feat, X) and torch.equal(again.ptr, PTR)
    assert points.to_data().num_graphs == 3 and PointSet.from_points(POS, X).to_data().num_nodes == 8


def test_from_open3d():
    colors, none = XYZ[::-1], np.zeros((0, 3))  # as Vector3dVector becomes an array
    cloud = SimpleNamespace(points=XYZ + 5e6, colors=colors, normals=none)
    points = PointSet.from_open3d(cloud)
    assert torch.equal(points.pos, torch.from_numpy(XYZ + 5e6)) and points.layout == Cloud()
    torch.testing.assert_close(points.feat, torch.from_numpy(colors.copy()).float())
    assert PointSet.from_open3d(cloud, features=()).feat.shape == (8, 0)
    both = PointSet.from_open3d(SimpleNamespace(points=XYZ, colors=colors, normals=XYZ))
    assert both.feat.shape == (8, 6) and torch.equal(both.feat[:, 3:], torch.from_numpy(XYZ).float())
    with pytest.raises(ValueError, match="from_open3d: it has no feature normal"):
        PointSet.from_open3d(cloud, features=("normal",))
    with pytest.raises(ValueError, match="from_open3d: a SimpleNamespace has no points; of a mesh"):
        PointSet.from_open3d(SimpleNamespace(vertices=XYZ))
    with pytest.raises(ValueError, match="from_open3d: expected at least one point"):
        PointSet.from_open3d(SimpleNamespace(points=none))


def test_structured_arrays_and_arrays_by_name():
    names = ("x", "y", "z", "red", "green", "blue", "intensity")
    red = np.arange(8, dtype=np.uint8)
    records = np.rec.fromarrays([*XYZ.T, red, red, red, XYZ[:, 0]], names=",".join(names))
    points = PointSet.from_columns(records, features=("intensity", "rgb"))
    assert torch.equal(points.pos, torch.from_numpy(XYZ))
    torch.testing.assert_close(points.feat[:, 0], torch.from_numpy(XYZ[:, 0]).float())
    torch.testing.assert_close(points.feat[:, 1], torch.arange(8) / 255)
    with pytest.warns(UserWarning, match="from_columns: not among the features: intensity"):
        assert PointSet.from_columns(records).feat.shape == (8, 3)
    points = PointSet.from_columns({"pos": POS, "normals": XYZ, "time": red}, features=("normal", "time"))
    assert points.pos.dtype == torch.float32 and points.feat.shape == (8, 4)
    for bad, message in (
        (XYZ, "an array of float64 has no named fields; from_points takes plain arrays"),
        ({"where": XYZ}, "expected positions under one of pos"),
        ({"pos": np.zeros((2, 8, 3))}, "expected one cloud, got 2"),
        (records[["x", "y"]], "expected fields x, y and z, found x, y"),
    ):
        with pytest.raises(ValueError, match=f"from_columns: {message}"):
            PointSet.from_columns(bad)
