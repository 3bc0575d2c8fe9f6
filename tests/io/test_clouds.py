"""Sets from files: clouds of several formats, images with masks, depth maps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.io import read_cloud, read_depth
from pointmix.io.mesh import SURFACE_POINTS
from pointmix.layouts.grid import Grid
from pointmix.layouts.sparse import SparseGrid

XYZ = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
RGB = np.random.default_rng(1).integers(0, 256, (6, 3), dtype=np.uint8)
PLY_TYPES = {"float32": "float", "float64": "double", "uint8": "uchar", "int32": "int"}


def ply(path: Path, columns: dict[str, np.ndarray], kind: str = "binary_little_endian", more: str = "") -> Path:
    """A .ply file written by hand."""
    order = ">" if kind == "binary_big_endian" else "<"
    rows = np.zeros(len(next(iter(columns.values()))), [(k, order + v.dtype.str[1:]) for k, v in columns.items()])
    for key, value in columns.items():
        rows[key] = value
    head = [f"format {kind} 1.0", f"element vertex {len(rows)}"]
    head += [f"property {PLY_TYPES[str(v.dtype)]} {k}" for k, v in columns.items()]
    text = "".join(line + "\n" for line in ["ply", *head, *more.splitlines(), "end_header"])
    body = rows.tobytes()
    if kind == "ascii":
        body = "".join(" ".join(map(repr, map(np.ndarray.item, row))) + "\n" for row in map(list_of, rows)).encode()
    path.write_bytes(text.encode() + body)
    return path


def list_of(row: np.void) -> list[np.ndarray]:
    return [np.asarray(value) for value in row]


def xyz(values: np.ndarray = XYZ) -> dict[str, np.ndarray]:
    return dict(zip("xyz", values.T, strict=True))


def rgb() -> dict[str, np.ndarray]:
    return dict(zip(("red", "green", "blue"), RGB.T, strict=True))


@pytest.mark.parametrize("kind", ["binary_little_endian", "binary_big_endian", "ascii"])
def test_ply(tmp_path, kind):
    normals = dict(zip(("nx", "ny", "nz"), XYZ.T[::-1], strict=True))
    path = ply(tmp_path / "a.PLY", normals | {"label": np.arange(6, dtype=np.int32)} | rgb() | xyz(), kind)
    points = PointSet.from_file(path)
    torch.testing.assert_close(points.pos, torch.from_numpy(XYZ))
    torch.testing.assert_close(points.feat[:, :3], torch.from_numpy(RGB / np.float32(255)))
    torch.testing.assert_close(points.feat[:, 3:], torch.from_numpy(XYZ[:, ::-1].copy()))


def test_ply_of_positions_alone_keeps_double_precision(tmp_path):
    far = XYZ.astype(np.float64) + 5e6
    points = PointSet.from_file(ply(tmp_path / "a.ply", xyz(far)))
    assert torch.equal(points.pos, torch.from_numpy(far))
    assert points.feat.shape == (6, 0) and points.feat.dtype == torch.float32


def test_ply_with_faces(tmp_path):
    more = "element face 1\nproperty list uchar int vertex_indices"
    path = ply(tmp_path / "a.ply", xyz(), "ascii", more)
    path.write_bytes(path.read_bytes() + b"3 0 1 2\n")
    torch.testing.assert_close(read_cloud(path, surface_points=0)[0], torch.from_numpy(XYZ))
    assert PointSet.from_file(path).pos.shape == (SURFACE_POINTS, 3)


def test_a_single_ply_property_is_no_column_of_vectors(tmp_path):
    label = np.arange(6, dtype=np.int32)
    path = ply(tmp_path / "a.ply", xyz() | {"rgb": label, "pos": label, "Data": label, "label": label})
    with pytest.warns(UserWarning, match="^not read from .ply files: property rgb, property pos, Data, label$"):
        points = PointSet.from_file(path)
    torch.testing.assert_close(points.pos, torch.from_numpy(XYZ))
    assert points.feat.shape == (6, 0)


@pytest.mark.parametrize("columns", [2, 3, 7])
def test_npy(tmp_path, columns):
    rows = np.random.default_rng(0).normal(size=(5, columns)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    points = PointSet.from_file(tmp_path / "a.npy")
    assert torch.equal(points.pos, torch.from_numpy(rows[:, :3]))
    assert torch.equal(points.feat, torch.from_numpy(rows[:, 3:]))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.int32, np.uint8])
def test_numbers_of_any_kind_are_positions(tmp_path, dtype):
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "a.npy", rows)
    points = PointSet.from_file(str(tmp_path / "a.npy"))
    assert points.pos.dtype == (torch.float64 if dtype in (np.float64, np.int32) else torch.float32)
    assert points.pos.tolist() == rows.tolist()


@pytest.mark.parametrize("key", ["pos", "xyz", "points", "data"])
def test_npz(tmp_path, key):
    arrays = {"normals": XYZ * 2, "colors": RGB, "feat": np.arange(6), "label": np.arange(9), key: XYZ}
    np.savez(tmp_path / "a.npz", **arrays)
    points = PointSet.from_file(tmp_path / "a.npz")
    assert torch.equal(points.pos, torch.from_numpy(XYZ))
    expected = np.concatenate([np.arange(6)[:, None], RGB / np.float32(255), XYZ * 2], axis=1)
    torch.testing.assert_close(points.feat, torch.from_numpy(expected.astype(np.float32)))


def test_npz_of_positions_in_five_dimensions(tmp_path):
    np.savez(tmp_path / "a.npz", pos=np.ones((4, 5), np.float32))
    assert PointSet.from_file(tmp_path / "a.npz").pos.shape == (4, 5)


@pytest.mark.parametrize("suffix", ["h5", "hdf5", "npz"])
def test_one_of_many_clouds(tmp_path, suffix):
    clouds = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    arrays = {"data": clouds, "rgb": np.stack([RGB] * 4), "label": np.arange(4)}
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file[key] = value
    points = PointSet.from_file(path, index=2)
    assert torch.equal(points.pos, torch.from_numpy(clouds[2]))
    torch.testing.assert_close(points.feat, torch.from_numpy(RGB / np.float32(255)))
    for index, message in ((None, "it holds 4 clouds, give the index of one"), (4, "from 0 to 3, got 4"), (-1, "-1")):
        with pytest.raises(ValueError, match=message):
            PointSet.from_file(path, index=index)


def test_features_are_normalized(tmp_path):
    np.savez(tmp_path / "a.npz", xyz=XYZ, rgb=RGB)
    points = PointSet.from_file(tmp_path / "a.npz", mean=(0.1, 0.2, 0.3), std=(0.5,))
    torch.testing.assert_close(points.feat, (torch.from_numpy(RGB) / 255 - torch.tensor([0.1, 0.2, 0.3])) / 0.5)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_images_come_in_rgb(tmp_path, mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    norm = dict(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    points = PointSet.from_file(tmp_path / "a.png", **norm)
    assert points.layout == Grid((5, 4))
    assert torch.equal(points.feat, PointSet.from_image(image.convert("RGB"), **norm).feat)


def test_a_mask_file_hides_pixels(tmp_path):
    mask = np.zeros((5, 4), np.uint8)
    mask[1:3, 2] = 200
    Image.new("RGB", (4, 5), "red").save(tmp_path / "a.jpg")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    points = PointSet.from_file(tmp_path / "a.jpg", tmp_path / "mask.png")
    assert isinstance(points.layout, SparseGrid) and points.layout.cell.tolist() == [[1, 2], [2, 2]]


def test_depth_files(tmp_path):
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    Image.fromarray(depth).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", depth / 1000)
    Image.fromarray(depth.astype(np.float32)).save(tmp_path / "a.tiff")
    assert np.array_equal(read_depth(tmp_path / "a.png"), depth)
    assert np.array_equal(read_depth(tmp_path / "a.npy"), depth / 1000)
    assert np.array_equal(read_depth(tmp_path / "a.tiff"), depth)
    Image.new("RGB", (4, 3)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb.png: expected a depth image of one channel .* got 3x4x3 uint8"):
        read_depth(tmp_path / "rgb.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="cannot read depth .*a.png"):
        read_depth(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no depth file none.png"):
        read_depth("none.png")


def npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda d: ply(d / "a.ply", rgb()), "expected vertices with x, y and z, found red, green, blue"),
        (lambda d: ply(d / "a.ply", xyz(XYZ[:0])), "expected at least one point"),
        (lambda d: ply(d / "a.ply", xyz(np.full((2, 3), np.nan, np.float32))), "infinite values at 2 of 2 points"),
        (lambda d: npz(d / "a.npz", where=XYZ), "expected positions under one of pos, xyz, .* found where"),
        (lambda d: npz(d / "a.npz", pos=XYZ, feat=np.ones(5)), r"feat is \(5,\), which does not match 6 points"),
        (lambda d: npz(d / "a.npz", pos=XYZ, feat=np.ones((6, 2, 2))), r"feat is \(6, 2, 2\), which does not"),
        (lambda d: npz(d / "a.npz", pos=XYZ, feat=np.array(["a"] * 6)), "feat are <U1, expected numbers"),
        (lambda d: npz(d / "a.npz", pos=XYZ.astype(complex)), "positions are \(6, 3\) complex128, expected numbers"),
        (lambda d: npz(d / "a.npz", pos=np.ones(3)), r"expected pos as \(N, D\), or \(n, N, D\)"),
        (lambda d: npz(d / "a.npz", pos=np.array([None, XYZ], dtype=object)), "pos holds Python objects"),
        (
            lambda d: npz(d / "a.npz", pos=XYZ, feat=np.full(6, np.inf)),
            "feat hold NaN or infinite values at 6 of 6 points, the first",
        ),
        (lambda d: d / "none.ply", "no file .*none.ply"),
        (
            lambda d: d / "a.abc",
            "unknown kind of file, expected one of .h5, .*.las, .*.npy, .*.ply, .*.png",
        ),
        (lambda d: d / "none.png", "no image file .*none.png"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, write, message):
    path = write(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        PointSet.from_file(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["b.ply", "a.ply", "a.npy", "a.npz", "a.h5", "a.png"])
@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.97])
def test_a_cut_file_is_named(tmp_path, name, kept):
    cloud = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
    path = tmp_path / name
    if name.endswith("ply"):
        ply(path, xyz(cloud), "ascii" if name == "a.ply" else "binary_little_endian")
    elif name == "a.npy":
        np.save(path, cloud)
    elif name == "a.npz":
        np.savez(path, pos=cloud)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["data"] = cloud
    else:
        Image.fromarray((cloud * 99).astype(np.uint8)).save(path)
    assert len(PointSet.from_file(path).pos) >= 400
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"cannot read .*{name}: .") as caught:
        PointSet.from_file(path)
    assert "\n" not in str(caught.value)


def test_text_in_place_of_a_cloud(tmp_path):
    for name in ("a.ply", "a.npy", "a.npz", "a.h5"):
        (tmp_path / name).write_text("x,y,z\n1,2,3\n")
        with pytest.raises(ValueError, match=f"cannot read .*{name}: ."):
            PointSet.from_file(tmp_path / name)


def test_masks_are_of_images_and_indices_of_clouds(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: an image file holds one image, got index 1"):
        PointSet.from_file(tmp_path / "a.png", index=1)
    with pytest.raises(ValueError, match="masks are for images"):
        PointSet.from_file(npz(tmp_path / "a.npz", pos=XYZ), tmp_path / "a.png")
    with pytest.raises(ValueError, match="the file holds one cloud, got index 2"):
        PointSet.from_file(ply(tmp_path / "a.ply", xyz()), index=2)


@pytest.mark.parametrize("library, name", [("plyfile", "a.ply"), ("h5py", "a.h5"), ("trimesh", "a.off")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, library, name):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).touch()
    with pytest.raises(ModuleNotFoundError, match=f"{name}: this kind of file needs {library}: pip install {library}"):
        PointSet.from_file(tmp_path / name)


def test_real_clouds():
    data = os.environ.get("POINTMIX_DATA", "")
    if not data:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    points = PointSet.from_file(Path(data, "mosd_objects/main_split_nobg/training_objectdataset.h5"), index=7)
    assert points.pos.shape == points.feat.shape == (2048, 3)
    assert points.pos.abs().max() < 1 and 0.2 < points.feat.max() <= 1
    assert PointSet.from_file(Path(data, "ycb_h5/test_model.h5"), index=0).feat.shape == (2048, 0)


def test_features_by_what_the_file_says_they_are(tmp_path: Path) -> None:
    normals = -XYZ
    np.savez(tmp_path / "both.npz", pos=XYZ, colors=RGB, normals=normals, Intensity=np.arange(6))
    np.savez(tmp_path / "feat.npz", pos=XYZ, feat=normals)
    np.save(tmp_path / "wide.npy", np.concatenate([XYZ, normals], axis=1))
    scaled, intensity = RGB / np.float32(255), np.arange(6)[:, None]
    for features, expected in (
        ((), RGB[:, :0]),
        ("rgb", scaled),
        ("normal", normals),
        (("intensity", "RGB", "normals"), np.concatenate([intensity, scaled, normals], axis=1)),
    ):
        feat = read_cloud(tmp_path / "both.npz", features=features)[1]
        assert torch.equal(feat, torch.from_numpy(np.asarray(expected, np.float32)))
    for name in ("wide.npy", "feat.npz"):
        for columns in ("normal", ("nx", "ny", "nz")):
            found = read_cloud(tmp_path / name, features=columns, columns=columns)[1]
            assert torch.equal(found, torch.from_numpy(normals))
            assert torch.equal(read_cloud(tmp_path / name, columns=columns)[1], torch.from_numpy(normals))
        for features, columns in (("normal", ()), ("normal", "rgb"), ("rgb", "normal")):
            with pytest.raises(ValueError, match=f"{name}: it has no feature {features} .*: (fur|feat|rgb|nor)"):
                read_cloud(tmp_path / name, features=features, columns=columns)
        with pytest.raises(ValueError, match="columns rgb, time are 4 values a point, it has 3 without a name"):
            read_cloud(tmp_path / name, features="rgb", columns=("rgb", "time"))
    np.savez(tmp_path / "rgba.npz", pos=XYZ, rgb=RGB[:, :2])
    with pytest.raises(ValueError, match=r"rgba.npz: rgb is \(6, 2\), expected \(6, 3\)"):
        read_cloud(tmp_path / "rgba.npz", features="rgb")
