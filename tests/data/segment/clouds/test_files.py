from __future__ import annotations

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from pointmix.data.segment.clouds.files import read_file
from pointmix.io.errors import UnreadableSample
from pointmix.io.registry import CLOUD_READERS
from pointmix.io.validate import as_positions

RNG = np.random.default_rng(0)
XYZ = RNG.random((20, 3), dtype=np.float32)
LABEL = np.arange(20) % 3


def write_ply(path, label: str, *, text: bool = False, order: str = "<"):
    kinds = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertex = np.empty(20, [*kinds, ("scalar_Intensity", "f4"), (label, "i4")])
    vertex["x"], vertex["y"], vertex["z"] = XYZ.T
    vertex["red"], vertex["green"], vertex["blue"] = 1, 2, 3
    vertex["scalar_Intensity"], vertex[label] = np.arange(20) / 4, LABEL
    face = PlyElement.describe(np.array([([0, 1, 2],)] * 20, [("vertex_indices", "i4", (3,))]), "face")
    PlyData([PlyElement.describe(vertex, "vertex"), face], text=text, byte_order=order).write(str(path))


@pytest.mark.parametrize("label", ["label", "class", "scalar_Label", "Classification", "segment"])
def test_ply_files(tmp_path, label):
    for text, order in ((True, "<"), (False, "<"), (False, ">")):
        write_ply(tmp_path / "a.ply", label, text=text, order=order)
        pos, features, found = read_file(tmp_path / "a.ply")[:3]
        assert pos.dtype == np.float32 and np.allclose(pos, XYZ) and pos.dtype.isnative
        assert set(features) == {"rgb", "intensity"} and features["rgb"][5].tolist() == [1, 2, 3]
        assert found.tolist() == LABEL.tolist()


def test_the_name_of_the_labels_can_be_given(tmp_path):
    write_ply(tmp_path / "a.ply", "truth")
    assert read_file(tmp_path / "a.ply").label is None
    assert "truth" in read_file(tmp_path / "a.ply").features
    assert read_file(tmp_path / "a.ply", "Truth").label.tolist() == LABEL.tolist()
    np.savez(tmp_path / "a.npz", xyz=XYZ, label=LABEL, other=LABEL + 1)
    assert read_file(tmp_path / "a.npz", "other").label.tolist() == (LABEL + 1).tolist()
    assert read_file(tmp_path / "a.npz", "nothing").label is None


@pytest.mark.parametrize("name", ["pos", "xyz", "coord", "points"])
def test_archives(tmp_path, name):
    more = {
        "normals": XYZ,
        "intensity": LABEL,
        "name": np.array("scene"),
        "camera": np.eye(4),
        "segment": LABEL[:, None],
    }
    np.savez(tmp_path / "a.npz", **{name: XYZ.astype(np.float64), **more})
    pos, features, label = read_file(tmp_path / "a.npz")[:3]
    assert pos.dtype == np.float64 and set(features) == {"normal", "intensity"} and label.shape == (20, 1)


def test_a_reader_of_your_own(tmp_path, monkeypatch):
    monkeypatch.setitem(CLOUD_READERS, ".xyzl", lambda path: dict(zip(("xyz", "label"), (XYZ, LABEL), strict=True)))
    (tmp_path / "a.xyzl").touch()
    assert read_file(tmp_path / "a.xyzl").label.tolist() == LABEL.tolist()


def test_las_files(tmp_path):
    laspy = pytest.importorskip("laspy", reason="laspy is not installed")
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = [0.001] * 3, [650000, 6860000, 0]
    las = laspy.LasData(header)
    far = XYZ + np.array([650000.0, 6860000.0, 0.0])
    las.x, las.y, las.z = far.T
    las.classification = LABEL
    las.write(tmp_path / "a.las")
    pos, features, label = read_file(tmp_path / "a.las")[:3]
    assert np.abs(pos - far).max() < 0.001 and label.tolist() == LABEL.tolist()
    assert {"intensity", "return_number", "number_of_returns"} <= set(features)


def test_bad_files(tmp_path):
    (tmp_path / "a.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1 2")
    np.savez(tmp_path / "a.npz", label=LABEL)
    np.savez(tmp_path / "b.npz", xyz=XYZ[:, :2])
    (tmp_path / "a.abc").write_text("1 2 3")
    for name, what in {
        "a.ply": "^the file is cut off",
        "a.npz": "expected positions under one of pos, xyz, points, data, coord, coords, found label",
        "b.npz": r"positions are \(20, 2\) float32, expected numbers \(N, 3\)",
        "a.abc": "unknown kind of file, expected one of .h5",
        "none.ply": "no file",
    }.items():
        with pytest.raises(UnreadableSample, match=what):
            read_file(tmp_path / name)


@pytest.mark.parametrize("kind, wide", [("f4", 0), (">f4", 0), ("f8", 1), ("f2", 0), ("i2", 0), ("i4", 1), ("u8", 1)])
def test_positions_are_as_precise_as_in_the_file(kind, wide):
    found = as_positions(np.arange(6).reshape(2, 3).astype(kind))
    assert found.dtype == (np.float64 if wide else np.float32) and found.dtype.isnative and found[1, 2] == 5
