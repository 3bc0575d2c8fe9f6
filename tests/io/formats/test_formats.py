from __future__ import annotations

import ast
import io
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import pointmix
from pointmix.io import read_cloud
from pointmix.io.formats.hdf5 import open_hdf5
from pointmix.io.formats.npy import open_npz, read_npy
from pointmix.io.formats.pillow import open_image
from pointmix.io.formats.ply import check_ply

XYZ = np.random.default_rng(0).random((6, 3))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_the_limit_on_pixels_takes_the_place_of_pillows(image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would refuse 600
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (image, str(image), io.BytesIO(image.read_bytes())):
            with open_image(source) as opened:
                assert opened.size == (30, 20)
    monkeypatch.setenv("POINTMIX_MAX_IMAGE_PIXELS", "599")
    with pytest.raises(ValueError, match="the image of 30 x 20 has 600 pixels, .* limit of 599; .*_MAX_IMAGE_PIXELS"):
        open_image(image)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_an_image_is_what_its_bytes_say_but_of_few_kinds(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg", kind)
        with open_image(tmp_path / "a.jpg") as image:
            assert image.format == kind and image.convert("L").size == (3, 2)
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg", "TGA")
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", "|u1"])
def test_arrays_are_as_numpy_reads_them(order, kind, tmp_path):
    array = np.asarray(XYZ * 100, dtype=kind, order=order)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_npy(tmp_path / "a.npy"), array) and read_npy(tmp_path / "a.npy").dtype == array.dtype
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", pos=array, other=XYZ)
        with open_npz(tmp_path / "a.npz") as arrays:
            assert list(arrays) == ["pos", "other"] and len(arrays) == 2 and "x" not in arrays
            assert np.array_equal(arrays["pos"], array) and arrays["pos"].dtype == array.dtype


def test_headers_of_every_version_are_read(tmp_path):
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array(file, XYZ, version=version)
        assert np.array_equal(read_npy(tmp_path / "a.npy"), XYZ)


def test_an_array_of_an_archive_is_read_once_and_only_if_wanted(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", pos=XYZ, colors=XYZ, weights=XYZ)
    opened, read = [], zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info: opened.append(info.filename) or read(self, info))
    read_cloud(tmp_path / "a.npz")
    assert opened == ["pos.npy", "pos.npy", "colors.npy", "colors.npy"]  # the header, then the values


def test_the_size_of_an_array_is_checked_before_it_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", pos=XYZ)
    np.save(tmp_path / "a.npy", XYZ)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pos"] = XYZ
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "143")
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    for name in ("a.npz", "a.npy", "a.h5"):
        with pytest.raises(ValueError, match=rf"{name}: .* \(6, 3\) has 144 bytes, more than the limit of 143"):
            read_cloud(tmp_path / name)


def test_the_header_of_an_array_is_not_read_where_it_is_large(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", XYZ)
    monkeypatch.setenv("POINTMIX_MAX_METADATA_BYTES", "117")  # of 118
    with pytest.raises(ValueError, match="a.npy: the header has 118 bytes, more than the limit of 117"):
        read_cloud(tmp_path / "a.npy")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_ply_files_of_every_system(tmp_path, end):
    head = ["ply", "format ascii 1.0", "comment end_header", "element vertex 2"]
    head += [f"property float {axis}" for axis in "xyz"]
    (tmp_path / "a.ply").write_bytes(end.join([*head, "end_header", "1 2 3", "4 5 6", ""]).encode())
    assert read_cloud(tmp_path / "a.ply")[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "a.ply").write_bytes(end.join([*head, "1 2 3"]).encode())
    with pytest.raises(ValueError, match="a.ply: the header is cut off: it has no line 'end_header'"):
        read_cloud(tmp_path / "a.ply")


def test_ply_headers_of_other_elements_count(tmp_path):
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty uchar x\nelement face {}\n"
    head += "property list uchar int i\nend_header\n1234"
    (tmp_path / "a.ply").write_text(head.format(3))
    check_ply(tmp_path / "a.ply")
    (tmp_path / "a.ply").write_text(head.format(4))
    with pytest.raises(ValueError, match="its header names 5 values, 4 bytes follow"):
        check_ply(tmp_path / "a.ply")


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pos"] = XYZ
        file["same"] = h5py.SoftLink("/pos")
        layout = h5py.VirtualLayout((6, 3), "f8")
        layout[:] = h5py.VirtualSource(".", "pos", (6, 3))
        file.create_virtual_dataset("view", layout)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("locking", [False, True, None, "best-effort"])
def test_a_file_that_this_process_has_open_can_be_read(cloud, locking):
    for mode in ("r", "r+"):
        with h5py.File(cloud, mode, locking=locking), open_hdf5(cloud) as file:
            assert all(np.array_equal(file[key][:], XYZ) for key in ("pos", "same", "view"))
        assert len(read_cloud(cloud)[0]) == 6


def test_a_file_that_another_process_writes(cloud):
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'w', libver='latest'); f['pos'] = [[1.0, 2, 3]]; f.flush(); "
    code += "print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, cloud], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ValueError, match="a.h5 is being written, or a program that wrote it was killed"):
            open_hdf5(cloud)
        other.kill()


def test_every_image_is_opened_by_the_opener():
    package, openers = Path(pointmix.__file__).parent, ("Image.open", "h5py.File")
    texts = {path.name: path.read_text() for path in package.rglob("*.py")}
    parsed = {name: ast.parse(text) for name, text in texts.items() if any(call in text for call in openers)}
    calls = [
        (name, node.func) for name, tree in parsed.items() for node in ast.walk(tree) if isinstance(node, ast.Call)
    ]
    places = {name for name, function in calls if ast.unparse(function) in openers}
    assert places == {"pillow.py", "hdf5.py", "shapes.py"}  # the last one writes
