from __future__ import annotations

import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointmix.data.clouds.sources import shapes
from pointmix.data.clouds.sources.scanobjectnn import open_scanobjectnn
from pointmix.data.clouds.sources.shapes import OBJECTS, scan, shapes_root, write_shapes


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(shapes, "COUNTS", {"training": 26, "test": 13})


def test_there_are_at_least_ten_kinds():
    assert len(OBJECTS) >= 10


@pytest.mark.parametrize("kind", OBJECTS)
def test_scans_fill_the_unit_sphere(kind):
    points, on_object = scan(rng(), kind, 5, points=200)
    assert points.shape == (5, 200, 3) and on_object.shape == (5, 200)
    assert np.isfinite(points).all() and np.abs(points.mean(1)).max() < 1e-12
    assert np.allclose(np.linalg.norm(points, axis=2).max(1), 1)
    assert len(np.unique(points.reshape(-1, 3), axis=0)) == 1000
    assert 0.7 < on_object.mean() <= 1


@pytest.mark.parametrize("kind", OBJECTS)
def test_parts_have_outward_normals_and_areas(kind):
    for point, normal, area in OBJECTS[kind](rng(), 300, 4):
        assert point.shape == normal.shape == (4, 300, 3) and area.shape == (4,) and (area > 0).all()
        assert np.allclose(np.linalg.norm(normal, axis=2), 1)


def test_background_is_a_floor_and_something_beside():
    points, on_object = scan(rng(), "ball", 40, points=400)
    shares = 1 - on_object.mean(1)
    assert shares.min() < 0.05 and 0.1 < shares.max() < 0.151
    b = int(shares.argmax())
    middle = points[b][on_object[b]].mean(0)
    away = np.linalg.norm(points[b] - middle, axis=1)
    assert away[~on_object[b]].mean() > 1.2 * away[on_object[b]].mean()
    assert points[b][~on_object[b]][:, 1].mean() < middle[1]


def test_sides_are_missing():
    """The middle of what is seen of a ball lies off its center, as far as half a radius for half a ball."""
    points, on_object = scan(rng(), "ball", 60, points=400)
    gap = []
    for cloud, mine in zip(points, on_object, strict=True):
        seen = cloud[mine]
        # |p|^2 = 2 c.p + r^2 - |c|^2 on a sphere about c: a least-squares fit of the center
        fit = np.linalg.lstsq(np.column_stack([2 * seen, np.ones(len(seen))]), (seen**2).sum(1), rcond=None)[0]
        radius = np.sqrt(fit[3] + (fit[:3] ** 2).sum())
        gap.append(np.linalg.norm(seen.mean(0) - fit[:3]) / radius)
    assert min(gap) < 0.15 and max(gap) > 0.4


def test_kinds_stay_apart_under_pose_and_noise():
    """Nearest of the mean histograms of distances between points: far above the 8 % of guessing, well below all."""

    def histograms(seed: int, n: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        return np.stack([[
            np.histogram(np.linalg.norm(c[:100, None] - c[100:], axis=2), 24, (0, 2))[0] / 1e4
            for c in scan(generator, kind, n, points=200)[0]] for kind in OBJECTS
        ])  # fmt: skip

    means, test = histograms(0, 20).mean(1), histograms(1, 10)  # (K, 24), (K, 10, 24)
    guess = ((test[:, :, None] - means) ** 2).sum(3).argmin(2)
    right = (guess == np.arange(len(OBJECTS))[:, None]).mean()
    assert 0.3 < right < 0.9


def test_files_have_scanobjectnns_layout(few, tmp_path):
    root = shapes_root(tmp_path)
    assert root.parent == tmp_path and root.name == f"shapes-v{shapes.VERSION}"
    train, test = (open_scanobjectnn(root, split=split, variant="obj_bg") for split in ("train", "test"))
    assert (len(train), len(test), train.points) == (26, 13, shapes.POINTS)
    assert train.classes == test.classes == list(OBJECTS)
    assert np.bincount(train.targets).tolist() == [3] * 2 + [2] * 10
    with h5py.File(train.paths[0]) as file:
        assert file["data"].dtype == np.float32 and set(np.unique(file["mask"])) == {-1, 0}
        first = file["data"][:]
    with h5py.File(test.paths[0]) as file:
        assert not np.array_equal(file["data"][0], first[0])


def test_numbers_follow_from_the_seed_alone(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_shapes(tmp_path / name, count=13, seed=seed, points=50)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_files_are_made_once(few, tmp_path, monkeypatch):
    root = shapes_root(tmp_path)
    monkeypatch.setattr(shapes, "write_shapes", lambda *args, **kwargs: pytest.fail("written again"))
    assert shapes_root(tmp_path) == root


def test_the_default_place_is_the_users_cache(few, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert shapes_root().parent == tmp_path / "xdg/pointmix"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert shapes_root().parent == tmp_path / "home/.cache/pointmix"


def _write(path: Path) -> None:
    write_shapes(path, count=60, seed=0, points=100)


def test_processes_may_write_at_once(tmp_path):
    path = tmp_path / "a.h5"
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    alone = tmp_path / "b.h5"
    _write(alone)
    assert path.read_bytes() == alone.read_bytes()


def test_a_failure_leaves_nothing_and_names_the_folder(few, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the shapes to .*file/shapes-v.*; name another folder, data.root"):
        shapes_root(tmp_path / "file")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shapes.os, "replace", full)
    with pytest.raises(OSError, match="No space left on device; name another folder"):
        shapes_root(tmp_path / "full")
    assert [p for p in (tmp_path / "full").rglob("*") if p.is_file()] == []
