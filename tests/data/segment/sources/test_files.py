from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pointmix.data.clouds.features import surveyed
from pointmix.data.segment import sources  # noqa: F401  registers the sources
from pointmix.data.segment.clouds.transforms import eval_transform, train_transform
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.source import SEGMENT_SOURCES, SegmentSource
from pointmix.io.errors import BadMask, UnreadableSample

RNG = np.random.default_rng(0)


def config(folder: Path, **settings) -> SegmentDataConfig:
    return SegmentDataConfig(**{"source": "files", "root": str(folder), "classes": ("a", "b", "c"), **settings})


def opened(cfg: SegmentDataConfig, split: str):
    entry = SEGMENT_SOURCES.find(cfg.source)
    entry.check(cfg)
    return entry.open(cfg, split)


def write(path: Path, n: int = 30, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{"xyz": RNG.random((n, 3), dtype=np.float32), "label": np.arange(n, dtype=np.uint8) % 3, **arrays})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/one/b.npz", "train/a.npz", "val/c.npz", "test/d.npz", "test/.hidden.npz"):
        write(tmp_path / name, intensity=np.arange(30))
    (tmp_path / "train/notes.txt").write_text("Scanned on a sunny day 3 times.\n")
    return tmp_path


def names(source: SegmentSource) -> list[str]:
    return [Path(source.name(i)).name for i in range(len(source))]


def test_folders_are_splits(root):
    train, val, test = (opened(config(root), split) for split in ("train", "val", "test"))
    assert isinstance(train, SegmentSource) and names(train) == ["a.npz", "b.npz"]
    assert names(val) == ["c.npz"] and names(test) == ["d.npz"]
    cloud = train.read(1)
    assert cloud.pos.shape == (30, 3) and cloud.label.tolist() == [i % 3 for i in range(30)] and cloud.category is None
    assert list(cloud.features) == ["intensity"] and train.categories is None and train.classes == ("a", "b", "c")


def test_patterns_and_lists_are_splits(root):
    (root / "test.txt").write_text("val/c.npz\ntest/d.npz\n")
    cfg = config(root, train_files=("train/*.npz", "*/one/*"), test_files=("test.txt",), val_files=())
    assert names(opened(cfg, "train")) == ["a.npz", "b.npz"] and names(opened(cfg, "test")) == ["d.npz", "c.npz"]
    assert opened(cfg, "val") is None
    write(root / "solo.npz")
    alone = config(root, train_files=("train/**/*",), test_files=("solo*",))
    assert names(opened(alone, "train")) == ["a.npz", "b.npz"]


def test_lists_name_files_that_are_there_and_of_one_split(root):
    cfg = config(root, train_files=("list.txt",))
    for text, error in (
        ("\n", "list.txt is empty, expected a file a line"),
        ("train/a.npz\ntrain/z.npz\n", "list.txt, line 2: no file .*/train/z.npz"),
        (f"train/a.npz\r\n{root}/train/../test/d.npz\r\n", "d.npz is in both train and test .and 0 more"),
    ):
        (root / "list.txt").write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            opened(cfg, "train")
    (root / "list.txt").write_text(f"train/a.npz\n{root}/train/a.npz\n")
    assert names(opened(cfg, "train")) == ["a.npz"]


def test_links_to_folders_are_followed(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (root / "train/one").rename(other / "one")
    (root / "train/one").symlink_to(other / "one")
    assert names(opened(config(root), "train")) == ["a.npz", "b.npz"]
    assert names(opened(config(root, train_files=("train/**/b*",)), "train")) == ["b.npz"]


def test_no_validation_split(root):
    (root / "val/c.npz").unlink()
    (root / "val").rmdir()
    assert opened(config(root), "val") is None


@pytest.mark.parametrize(
    "settings, split, error",
    [
        ({"train_files": ("no*.npz",)}, "train", "no file .*/no[*].npz, expected .*.npz.* for train"),
        (
            {"train_files": ("train/a.npz",), "test_files": ("t*/**/*",)},
            "test",
            "a.npz is in both test and train .and 0",
        ),
        ({"train_files": ("**/c.npz",)}, "train", "c.npz is in both train and val .and 0 more"),
        ({"train_files": ("none.txt",)}, "train", "no file .*none.txt"),
        ({"train_files": ("/tmp/*.npz",)}, "train", "pattern '/tmp/[*].npz', expected one of files below this folder"),
        ({"train_files": ("",)}, "train", "pattern '', expected one"),
        ({"root": "/nowhere"}, "train", "no folder /nowhere .data.root."),
        ({"root": None}, "train", "data.root is not set; expected the folder of files"),
        ({"classes": None}, "train", "data.classes is not set"),
        ({"classes": ()}, "train", "data.classes is not set; expected the names of the classes"),
        ({"classes": ("a", "", "c")}, "train", "class 1 has an empty name"),
        ({"classes": ("a", "b", "a")}, "train", "class a is named twice"),
        ({"label_map": {1: 3}}, "train", "data.label_map 1: 3; expected a class from 0 to 2 or -1"),
        ({"test_area": 2}, "train", "data.test_area is set, but data.source is files, which does not use it"),
    ],
)
def test_settings_that_do_not_fit(root, settings, split, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        opened(config(root, **settings), split)


def test_a_missing_test_folder(tmp_path):
    write(tmp_path / "train/a.npz")
    with pytest.raises(FileNotFoundError, match="no folder .*/test; name files with data.test_files"):
        opened(config(tmp_path), "test")


def test_columns_without_a_name_and_other_names(tmp_path):
    table = np.concatenate([RNG.random((9, 3)), RNG.integers(0, 256, (9, 3)), np.arange(9)[:, None] % 3], axis=1)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        np.savetxt(tmp_path / split / "a.txt", table, fmt="%.6g")
    with pytest.raises(BadMask, match="a.txt: it has no labels"):
        opened(config(tmp_path), "train").read(0)
    cloud = opened(config(tmp_path, columns=("rgb", "label"), features=("rgb",)), "train").read(0)
    assert cloud.label.tolist() == [0, 1, 2] * 3 and np.array_equal(cloud.features["rgb"], table[:, 3:6])
    np.savez(tmp_path / "test" / "b.npz", where=table[:, :3], refl=table[:, 3], kind=table[:, 6])
    cfg = config(tmp_path, test_files=("test/b.npz",), keys={"pos": "where", "intensity": "refl"}, label_name="kind")
    cloud = opened(cfg, "test").read(0)
    assert cloud.label.tolist() == [0, 1, 2] * 3 and np.array_equal(cloud.features["intensity"], table[:, 3])


def test_bad_files(tmp_path):
    write(tmp_path / "train/a.npz", label=np.arange(30) % 4)
    write(tmp_path / "train/b.npz", label=np.zeros(29, int))
    write(tmp_path / "train/d.npz", label=np.full(30, 255))
    write(tmp_path / "train/e.npz", xyz=np.full((30, 3), np.nan))
    np.savez(tmp_path / "train/c.npz", xyz=np.zeros((3, 3)), height=np.zeros(3))
    (tmp_path / "train/f.npz").write_bytes(b"PK")
    source = opened(config(tmp_path), "train")
    with pytest.raises(BadMask, match="a.npz: label 3 at point 3 .and 6 more points., expected 0 to 2, 255 or -1"):
        source.read(0)
    with pytest.raises(BadMask, match="b.npz: labels are .29,. int64, expected a whole number for each of 30 points"):
        source.read(1)
    with pytest.raises(BadMask, match="c.npz: it has no labels, expected an array label or .*; found height"):
        source.read(2)
    transform = eval_transform(config(tmp_path))
    with pytest.raises(UnreadableSample, match="all 30 points are ignored"):
        transform(source.read(3))
    with pytest.raises(UnreadableSample, match="NaN or infinite at 30 of 30 points; nan drop leaves them out"):
        transform(source.read(4))
    with pytest.raises(UnreadableSample, match="^not a complete .npz archive"):
        source.read(5)


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("POINTMIX_DATA", "")
    if not folder:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    return Path(folder)


def test_airborne_scans_are_split_by_site_and_their_codes_mapped(real):
    cfg = config(
        real / "airborne_lidar",
        classes=("other", "ground", "vegetation", "building"),
        label_map={1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3},
        train_files=("0382*",),
        test_files=("0292*",),
        features=("intensity", "return_number", "number_of_returns"),
        crop="sphere",
        crop_extent=25.0,
        max_points=1024,
    )
    train, test = opened(cfg, "train"), opened(cfg, "test")
    assert (len(train), len(test)) == (77, 100) and opened(cfg, "val") is None
    cfg, _ = surveyed(cfg, train, range(len(train)))
    assert cfg.feature_scale["intensity"] > 100 and 0.2 < cfg.feature_scale["return_number"] < 2
    raw = np.load(train.paths[7])
    cloud = train.read(7)
    codes = {int(code): set(cloud.label[raw["label"] == code].tolist()) for code in np.unique(raw["label"])}
    expected = {1: {0}, 2: {1}, 3: {2}, 4: {2}, 5: {2}, 6: {3}}
    assert codes == {code: expected.get(code, {-1}) for code in codes} and len(codes) > 3
    whole, part = eval_transform(cfg)(cloud), train_transform(cfg)(cloud)
    assert len(whole.labels) == len(raw["label"]) and len(part.labels) <= 1024 and part.points.feat.shape[1] == 3
    assert 0 < part.points.feat.std() < 3


def test_parts_of_caps(real):
    cfg = config(
        real / "caps_parts",
        classes=("panel", "peak"),
        label_map={6: 0, 7: 1},
        train_files=("val*",),
        test_files=("test*",),
        features=("normal",),
        normalize="unit_sphere",
        up="y",
        max_points=2048,
    )
    train, test = opened(cfg, "train"), opened(cfg, "test")
    assert (len(train), len(test)) == (5, 11)
    cfg, _ = surveyed(cfg, train, range(len(train)))
    batch = train_transform(cfg)(train.read(0))
    assert batch.points.feat.shape == (2048, 3) and set(batch.labels.tolist()) == {0, 1}
    assert np.isclose(np.linalg.norm(batch.points.feat, axis=1), 1, atol=1e-3).mean() > 0.9
