"""Readers registered from outside the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.io import Columns, is_image, read_image, register_image_reader, register_reader, registry

TABLE = np.random.default_rng(0).random((5, 7))


@pytest.fixture(autouse=True)
def separate(monkeypatch):
    for readers in ("CLOUD_READERS", "IMAGE_READERS"):
        monkeypatch.setattr(registry, readers, dict(getattr(registry, readers)))
    from pointmix.io import image_files

    monkeypatch.setattr(image_files, "IMAGE_READERS", registry.IMAGE_READERS)


def test_a_reader_of_clouds(tmp_path):
    @register_reader(".abc", ".XYZ1")
    def read_xyz(path: Path) -> Columns:
        table = np.loadtxt(path, ndmin=2)
        return {"xyz": table[:, :3], "rgb": table[:, 3:6] * 255, "time": table[:, 6]}

    np.savetxt(tmp_path / "a.xyz1", TABLE)
    with pytest.warns(UserWarning, match="^not read from .xyz1 files: time$"):
        points = PointSet.from_file(tmp_path / "a.xyz1")
    torch.testing.assert_close(points.pos, torch.from_numpy(TABLE[:, :3]))
    torch.testing.assert_close(points.feat, torch.from_numpy(TABLE[:, 3:6]).float())
    with pytest.raises(ValueError, match="cannot read .*b.abc: the file holds one cloud, got index 1"):
        np.savetxt(tmp_path / "b.abc", TABLE)
        PointSet.from_file(tmp_path / "b.abc", index=1)
    (tmp_path / "c.abc").write_text("x y z")
    with pytest.raises(ValueError, match="cannot read .*c.abc: could not convert"):
        PointSet.from_file(tmp_path / "c.abc")


def test_a_reader_may_close_its_file(tmp_path):
    closed = []

    @register_reader(".raw")
    @contextmanager
    def read_raw(path: Path) -> Iterator[Columns]:
        with open(path, "rb") as file:
            yield {"points": np.fromfile(file).reshape(2, -1, 7)}
        closed.append(file.closed)

    np.concatenate([TABLE, TABLE + 1]).tofile(tmp_path / "a.raw")
    points = PointSet.from_file(tmp_path / "a.raw", index=1)
    assert closed == [True]
    torch.testing.assert_close(points.pos, torch.from_numpy(TABLE[:, :3] + 1))
    assert points.feat.shape == (5, 4)


def test_a_reader_of_images(tmp_path):
    @register_image_reader(".raw")
    def read_raw(path: Path) -> Image.Image:
        return Image.fromarray(np.fromfile(path, np.uint8).reshape(2, 3, 3))

    pixels = np.arange(18, dtype=np.uint8)
    pixels.tofile(tmp_path / "a.raw")
    assert is_image("a.RAW") and np.array_equal(np.asarray(read_image(tmp_path / "a.raw")).flatten(), pixels)
    assert PointSet.from_file(tmp_path / "a.raw").layout.size == (2, 3)
    pixels[:4].tofile(tmp_path / "a.raw")
    with pytest.raises(ValueError, match="cannot read image .*a.raw: cannot reshape array"):
        read_image(tmp_path / "a.raw")


@pytest.mark.parametrize("suffix", [".ply", ".PNG"])
def test_a_suffix_has_one_reader(suffix):
    for register in (register_reader, register_image_reader):
        with pytest.raises(ValueError, match=f"{suffix.lower()} files have a reader already"):
            register(suffix)(lambda path: {})
        with pytest.raises(ValueError, match="a suffix begins with a dot, got 'las'"):
            register("las")(lambda path: {})
