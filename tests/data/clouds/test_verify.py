from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from pointmix.data.clouds.hdf5 import CloudFiles
from pointmix.data.clouds.verify import extract, sha256, verify_clouds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.ones((5, 9, 3)), np.array([0, 1, 1, 2, 0])
    return tmp_path / "a.h5"


def test_lines_give_sums_and_counts(path):
    files = CloudFiles([path], classes=("box", "cup", "cone"))
    lines = list(verify_clouds(files, count=5, points=9))
    assert lines == [f"{path}: sha256 {sha256(path)}", "  5 clouds: 2 box, 2 cup, 1 cone"]
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "count, points, message", [(6, 9, "5 clouds of 9 points, expected 6 of 9"), (5, 8, "5 clouds of 9 .* 5 of 8")]
)
def test_wrong_counts(path, count, points, message):
    with pytest.raises(ValueError, match=f"a.h5: {message}"):
        list(verify_clouds(CloudFiles([path]), count=count, points=points))


def test_every_cloud_is_read_and_every_class_wanted(path):
    with pytest.raises(ValueError, match="a.h5: no cloud of class torus"):
        list(verify_clouds(CloudFiles([path], classes=("box", "cup", "cone", "torus")), count=5, points=9))
    with h5py.File(path, "r+") as file:
        file["data"][4, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"a.h5\[4\]: the positions are NaN"):
        list(verify_clouds(CloudFiles([path]), count=5, points=9))


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_wanted_members_are_written_where_they_belong(tmp_path):
    members = {"h5_files/main/a.h5": b"right", "__MACOSX/h5_files/main/a.h5": b"junk"}
    members |= {"../main/b.h5": b"up", "c": b"no"}
    archive = zipped(tmp_path / "x.zip", members)
    root = tmp_path / "out"
    extract(archive, root, {"main/a.h5": "main/a.h5", "main/b.h5": "main/b.h5"})
    written = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert written == {"main/a.h5": b"right", "main/b.h5": b"up"} and not (tmp_path / "main").exists()
    (root / "main/a.h5").write_bytes(b"mine")
    extract(archive, root, {"main/a.h5": "main/a.h5"})
    assert (root / "main/a.h5").read_bytes() == b"mine"


def test_an_archive_larger_than_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "x.zip", {"a.h5": bytes(1000)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=999))
    with pytest.raises(ValueError, match="x.zip unpacks to 1000 bytes, 999 are free in .*out"):
        extract(archive, tmp_path / "out", {"a.h5": "a.h5"})
    assert list((tmp_path / "out").iterdir()) == []


def test_archives_that_will_not_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*x.zip"):
        extract(tmp_path / "x.zip", tmp_path, {"a.h5": "a.h5"})
    archive = zipped(tmp_path / "x.zip", {"b": b""})
    with pytest.raises(ValueError, match="x.zip holds none of a.h5"):
        extract(archive, tmp_path, {"a.h5": "a.h5"})
    archive.write_bytes(b"something else")
    with pytest.raises(ValueError, match="x.zip is not a complete zip file"):
        extract(archive, tmp_path, {"a.h5": "a.h5"})
