"""Positions, features by name and labels of clouds in files."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest

from pointmix.io import is_cloud, open_clouds, read_cloud, read_columns
from pointmix.io.errors import UnreadableSample

RNG = np.random.default_rng(0)
XYZ = RNG.random((9, 3)).astype(np.float32)


def test_features_are_found_by_any_of_their_names(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=XYZ, scalar_Intensity=XYZ[:, 0], Colors=XYZ, Time=XYZ[:, 1], label=XYZ[:, 2])
    found = read_columns(tmp_path / "a.npz")
    assert set(found.features) == {"rgb", "intensity", "time"} and np.array_equal(found.label, XYZ[:, 2])
    found = read_columns(tmp_path / "a.npz", features=("TIME", "scalar_Intensity", "rgb", "label"), labels=())
    assert list(found.features) == ["TIME", "scalar_Intensity", "rgb", "label"] and found.label is None
    assert np.array_equal(found.features["label"], XYZ[:, 2])
    with pytest.raises(UnreadableSample, match="^it has no feature height .*; it has: intensity, rgb, time, label"):
        read_columns(tmp_path / "a.npz", features=("height",))


def test_other_names_are_given(tmp_path):
    np.savez(tmp_path / "a.npz", where=XYZ, how=XYZ[:, 0], xyz=XYZ[:2])
    found = read_columns(tmp_path / "a.npz", keys={"pos": "where", "intensity": "how"}, features=("intensity",))
    assert np.array_equal(found.pos, XYZ) and np.array_equal(found.features["intensity"], XYZ[:, 0])
    with pytest.raises(UnreadableSample, match="expected positions under one of place, found where, how, xyz"):
        read_columns(tmp_path / "a.npz", keys={"pos": "place"})


def test_points_with_nan_are_refused_or_dropped_and_counted(tmp_path):
    pos, time = XYZ.copy(), XYZ[:, 0].copy()
    pos[3, 1], time[5], time[3] = np.nan, np.inf, np.nan
    np.savez(tmp_path / "a.npz", pos=pos, time=time, label=np.arange(9))
    with pytest.raises(ValueError, match="positions hold NaN .* at 1 of 9 points, the first at 3; nan drop"):
        read_cloud(tmp_path / "a.npz")
    found = read_columns(tmp_path / "a.npz", nan="drop", features=("time",))
    assert found.dropped == 2 and found.label.tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert np.array_equal(found.pos, XYZ[found.label]) and np.array_equal(found.features["time"], XYZ[found.label, 0])
    assert read_columns(tmp_path / "a.npz", nan="drop").dropped == 1  # no feature is asked for
    with pytest.warns(UserWarning, match="a.npz: 2 points with NaN or infinite values are left out"):
        assert read_cloud(tmp_path / "a.npz", nan="drop", features="time")[0].shape == (7, 3)
    np.save(tmp_path / "b.npy", pos * np.nan)
    with pytest.raises(UnreadableSample, match="all 9 points hold NaN"):
        read_columns(tmp_path / "b.npy", nan="drop")
    with pytest.raises(UnreadableSample, match="nan 'no': expected refuse, drop or keep"):
        read_columns(tmp_path / "b.npy", nan="no")
    kept = read_columns(tmp_path / "a.npz", nan="keep", features=("time",))
    assert len(kept.pos) == 9 and np.isnan(kept.pos[3, 1]) and kept.dropped == 0


def test_clouds_of_any_sizes_in_every_form(tmp_path):
    sizes, both = [4, 1, 3], XYZ[:8]
    clouds, starts = np.split(both, [4, 5]), np.array([0, 4, 5, 8])
    kinds = np.array([7, 8, 9])
    forms = {
        "ptr": {"pos": both, "label": kinds, "time": both[:, 0], "ptr": starts},
        "offset": {"coord": both, "label": kinds, "time": both[:, 0], "offset": starts[1:]},
        "lengths": {"data": np.c_[both, both[:, 0]], "label": kinds, "lengths": np.array(sizes)},
        "arrays": {f"cloud_{i}": np.c_[cloud, cloud[:, 0]] for i, cloud in zip((2, 9, 10), clouds, strict=True)},
        "groups": {},
    }
    for i, cloud in enumerate(clouds):
        forms["groups"] |= {f"{i}/xyz": cloud, f"{i}/time": cloud[:, 0], f"{i}/label": kinds[i]}
    for name, arrays in forms.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for key, value in arrays.items():
                file[key] = value
        with open_clouds(tmp_path / f"{name}.h5", columns=("time",)) as found:
            assert len(found) == 3
            for i, cloud in enumerate(clouds):
                read = found.read(i, features=("time",))
                assert np.array_equal(read.pos, cloud) and np.array_equal(read.features["time"], cloud[:, 0])
                assert name == "arrays" or read.label == kinds[i]
            with pytest.raises(UnreadableSample, match="index must be from 0 to 2, got 3"):
                found.read(3)
        with pytest.raises(UnreadableSample, match="it holds 3 clouds, give the index of one"):
            read_columns(tmp_path / f"{name}.h5")


def test_errors_of_the_caller_stay_what_they_are(tmp_path):
    np.save(tmp_path / "a.npy", XYZ)
    with pytest.raises(KeyError), open_clouds(tmp_path / "a.npy"):
        raise KeyError("mine")


def test_dimensions_and_transposed_arrays(tmp_path):
    np.save(tmp_path / "a.npy", XYZ[:, :2])
    with pytest.raises(UnreadableSample, match=r"positions are \(9, 2\) float32, expected numbers \(N, 3\)"):
        read_columns(tmp_path / "a.npy", dims=3)
    assert read_columns(tmp_path / "a.npy").pos.shape == (9, 2)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = np.zeros((5, 3, 100))
    with pytest.raises(ValueError, match=r"positions are \(3, 100\), expected \(N, 3\): they are transposed"):
        read_cloud(tmp_path / "b.h5", 0)


def test_8_bit_colors_in_16_bits_of_a_las_file(tmp_path):
    laspy = pytest.importorskip("laspy", reason="laspy is not installed")
    for high in (255, 65535):
        las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
        las.x, las.y, las.z = XYZ.T
        las.red = las.green = las.blue = np.linspace(0, high, 9).astype(np.uint16)
        las.write(tmp_path / "a.las")
        feat = read_cloud(tmp_path / "a.las", features="rgb")[1]
        assert np.abs(feat[:, 0].numpy() - np.linspace(0, 1, 9)).max() < 0.005


def test_map_coordinates_in_single_precision_are_noticed(tmp_path):
    far = XYZ.astype(np.float64) + [500_000, 4_500_000, 0]
    np.save(tmp_path / "a.npy", far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_columns(tmp_path / "a.npy").pos, far)
        for near in (XYZ, XYZ * 0 + 5e6, XYZ[:1] + 5e6, XYZ * 1e-9, XYZ + 100):
            np.save(tmp_path / "a.npy", near)
            read_columns(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", far.astype(np.float32))
    with pytest.warns(UserWarning, match="rounded to a thousandth of the cloud's size or more; store them in double"):
        read_columns(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("a.txt", "1 2 3\n", True),
        ("a.txt", "# made by\n50\n1;2;3\n", True),
        ("a.csv", "name,x,y,z\nchair,1,2,3\n", True),
        ("a.txt", "1,5 2,5 3,5\n", True),  # refused with its reason when it is read
        ("a.txt", "", True),
        ("a.txt", "Scanned 3 times.\n", False),
        ("labels.csv", "file,label\na.ply,3\n", False),
        ("train.txt", "train/1.ply\ntrain/2.ply\n", False),
        ("a.md", "1 2 3\n", False),
        ("a.PLY", "", True),
    ],
)
def test_clouds_in_a_folder_are_told_from_other_files(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert is_cloud(tmp_path / name) == expected
