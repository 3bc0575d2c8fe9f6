"""Colors in files: whatever they are called and stored as, they are in [0, 1]."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.features import scaled_features, survey
from pointmix.data.clouds.hdf5 import CloudFiles
from pointmix.io import read_cloud
from pointmix.io.colors import color_scale, told_scale
from pointmix.io.errors import UnreadableSample

XYZ = np.random.default_rng(0).random((6, 3)).astype(np.float32)
RGB = np.random.default_rng(1).integers(0, 256, (6, 3))
RGB[0, 0] = 255
COLORS = torch.from_numpy(RGB / 255).float()

STORED = {
    "uchar": RGB.astype(np.uint8),
    "ushort": (RGB * 257).astype(np.uint16),
    "int": RGB.astype(np.int32),
    "uint": RGB.astype(np.uint32),
    "short": RGB.astype(np.int16),
    "int of 16 bits": (RGB * 257).astype(np.int32),
    "float in [0, 1]": (RGB / 255).astype(np.float32),
    "float to 255": RGB.astype(np.float32),
    "double to 255": RGB.astype(np.float64),
    "float to 65535": (RGB * 257).astype(np.float32),
}
NAMES = [
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("Red", "Green", "Blue"),
]


def ply(path: Path, columns: dict[str, np.ndarray], text: bool = False) -> Path:
    rows = np.zeros(len(XYZ), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    PlyData([PlyElement.describe(rows, "vertex")], text=text).write(str(path))
    return path


def named(names: tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, values.T, strict=True))


pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("text", [False, True])
def test_ply(tmp_path, stored, text):
    path = ply(tmp_path / "a.ply", named(tuple("xyz"), XYZ) | named(NAMES[0], STORED[stored]), text)
    torch.testing.assert_close(PointSet.from_file(path).feat, COLORS)


@pytest.mark.parametrize("colors", NAMES)
@pytest.mark.parametrize("normals", [("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")])
def test_spellings_of_ply(tmp_path, colors, normals):
    columns = named(normals, -XYZ) | named(colors, STORED["uchar"]) | named(tuple("xyz"), XYZ)
    points = PointSet.from_file(ply(tmp_path / "a.ply", columns))
    torch.testing.assert_close(points.feat, torch.cat([COLORS, torch.from_numpy(-XYZ)], dim=1))
    assert torch.equal(read_cloud(tmp_path / "a.ply", features="normal")[1], torch.from_numpy(-XYZ))


def test_what_a_ply_file_has_besides_is_named_once(tmp_path):
    more = {"alpha": STORED["uchar"][:, 0], "label": STORED["int"][:, 0], "r": XYZ[:, 0], "g": XYZ[:, 0]}
    columns = named(tuple("xyz"), XYZ) | named(NAMES[0], STORED["uchar"]) | more
    for name in ("a.ply", "b.ply"):
        ply(tmp_path / name, columns)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name in ("a.ply", "b.ply"):
            assert PointSet.from_file(tmp_path / name).feat.shape == (6, 3)
    assert [str(w.message) for w in caught] == ["not read from .ply files: alpha, label, r, g"]


def test_arrays_that_are_not_read_are_named_once(tmp_path):
    arrays = {"pos": XYZ, "rgb": STORED["uchar"], "color": XYZ, "label": XYZ[:, 0], "intensity": XYZ[:, 0]}
    np.savez(tmp_path / "a.npz", **arrays)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update(arrays)
        file.create_group("more")
    for suffix, names in ((".npz", "rgb, label, intensity"), (".h5", "intensity, label, more, rgb")):
        (tmp_path / f"b{suffix}").write_bytes((tmp_path / f"a{suffix}").read_bytes())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for name in "ab":
                assert PointSet.from_file(tmp_path / f"{name}{suffix}").feat.shape == (6, 3)
        assert {str(w.message) for w in caught} == {f"not read from {suffix} files: {names}"}
        # beartype makes Python forget which warnings it has shown
        assert len(caught) == 1 or os.environ.get("POINTMIX_CHECK_SHAPES")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("key", ["rgb", "color", "colors"])
def test_arrays_that_are_named_colors(tmp_path, stored, key):
    np.savez(tmp_path / "a.npz", pos=XYZ, **{key: STORED[stored]})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pos"], file[key] = XYZ, STORED[stored]
    for name in ("a.npz", "a.h5"):
        torch.testing.assert_close(PointSet.from_file(tmp_path / name).feat, COLORS)


@pytest.mark.parametrize("stored", STORED)
def test_columns_that_are_said_to_be_colors(tmp_path, stored):
    np.save(tmp_path / "a.npy", np.concatenate([XYZ, STORED[stored]], axis=1))
    if stored not in ("uchar", "ushort"):  # which are floats in one array with positions
        torch.testing.assert_close(read_cloud(tmp_path / "a.npy", features="rgb", columns="rgb")[1], COLORS)
    assert PointSet.from_file(tmp_path / "a.npy").feat.max() == STORED[stored].max()  # nobody knows what they are


def as_in_training(files: CloudFiles, *indices: int) -> list[torch.Tensor]:
    scale = survey(PointDataConfig(features=("rgb",)), files, range(len(files))).feature_scale
    return [scaled_features(files.read(index), ("rgb",), scale) for index in indices]


@pytest.mark.parametrize("stored", STORED)
def test_training_reads_them_as_prediction_does(tmp_path, stored):
    dark = STORED[stored] // 200 if STORED[stored].dtype.kind in "iu" else STORED[stored] / 150
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.stack([XYZ, XYZ]), np.arange(2)
        file["rgb"] = np.stack([STORED[stored], dark.astype(STORED[stored].dtype)])
    predicted = [read_cloud(tmp_path / "a.h5", index=index, features="rgb")[1] for index in (0, 1)]
    trained = as_in_training(CloudFiles([tmp_path / "a.h5"], features=["rgb"]), 0, 1)
    torch.testing.assert_close(trained[0], COLORS)
    for a, b in zip(trained, predicted, strict=True):
        assert torch.equal(a, b)
    assert trained[1].max() < 0.01  # dark, in the unit of the file


@pytest.mark.parametrize(
    "colors, message",
    [
        (np.full((6, 3), 70000), "colors are from 0 to 70000, expected up to 1, 255 or 65535"),
        (np.full((6, 3), -1), "colors are from -1 to 0, expected .* none negative"),
        (np.full((6, 3), 1e6), r"colors are from 0 to 1e\+06, expected"),
    ],
)
def test_colors_in_no_known_range_are_refused(tmp_path, colors, message):
    np.savez(tmp_path / "a.npz", pos=XYZ, rgb=colors)
    with pytest.raises(ValueError, match=f"cannot read .*a.npz: {message}"):
        PointSet.from_file(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"], file["rgb"] = XYZ[None], np.zeros(1, int), colors[None]
    with pytest.raises(ValueError, match=message.replace("colors are", "rgb is")):
        as_in_training(CloudFiles([tmp_path / "a.h5"], features=["rgb"]))


def test_the_type_decides_in_any_byte_order():
    for dtype in ("<u2", ">u2"):
        assert color_scale(np.array([[0, 200]], dtype=dtype)) == 65535


def test_a_damaged_cloud_does_not_change_the_colors_of_others(tmp_path):
    rgb = np.stack([STORED["float to 255"]] * 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.stack([XYZ] * 5), np.zeros(5, int)
        stored = file.create_dataset("rgb", data=rgb, chunks=(1, 6, 3), fletcher32=True)
        place = stored.id.get_chunk_info(3).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place] ^= 255
    (tmp_path / "a.h5").write_bytes(content)
    clouds = CloudFiles([tmp_path / "a.h5"], features=["rgb"])
    torch.testing.assert_close(as_in_training(clouds, 4)[0], COLORS)
    with pytest.raises(UnreadableSample):
        clouds.read(3)


def test_only_so_many_colors_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "100")
    colors = STORED["float to 255"].repeat(2, 0)
    with pytest.raises(ValueError, match=r"the array of colors \(12, 3\) has 144 bytes, more than the limit of 100"):
        color_scale(colors)
    assert color_scale(STORED["ushort"].repeat(9, 0)) == 65535  # which need no look


@pytest.mark.parametrize(
    "colors, expected",
    [
        (np.array([0, 1], np.uint8), 255),
        (np.array([0, 256], np.uint16), 65535),
        (np.array([0, 255], np.uint16), None),  # may be of 8 bits
        (np.array([0, 0.5]), 1),
        (np.array([0.0, 1.0, np.nan]), None),  # black in any range
        (np.array([0, 1]), None),
        (np.array([0, 200.5]), 255),
        (np.array([0, 70000]), None),
    ],
)
def test_what_the_values_of_a_file_tell(colors, expected):
    assert told_scale(colors[:, None]) == expected


def test_normalized_colors_are_kept():
    assert color_scale(np.array([[-2.1, 2.6]])) == 1
    assert color_scale(np.array([[0, 1.0000001], [np.nan, 0]])) == 1
    assert color_scale(np.array([True, False])) == 1
    assert color_scale(np.array([0, 1, 1])) == 1  # integers up to 1 are no bytes
    assert color_scale(np.arange(1000, dtype=np.float32) / 4) == 255  # read in parts
