from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointmix.data.clouds.features import surveyed
from pointmix.data.segment import sources  # noqa: F401  registers the sources
from pointmix.data.segment.clouds.transforms import eval_transform, train_transform
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.source import SEGMENT_SOURCES, SegmentSource
from pointmix.data.segment.sources.shapenetpart import CATEGORIES, CLASSES
from pointmix.io.errors import BadMask, UnreadableSample

RNG = np.random.default_rng(0)


def opened(root: Path, split: str = "train", **settings):
    cfg = SegmentDataConfig(source="shapenetpart", root=str(root), **settings)
    entry = SEGMENT_SOURCES.find("shapenetpart")
    entry.check(cfg)
    return entry.open(cfg, split)


def write_text(root: Path, objects: dict[str, np.ndarray], split: str = "train") -> None:
    """FOLDER/NAME -> (N, 7)"""
    (root / "train_test_split").mkdir(parents=True, exist_ok=True)
    (root / "synsetoffset2category.txt").write_text("Airplane\t02691156\nCap\t02954340\nTable\t04379243\n")
    listed = root / f"train_test_split/shuffled_{split}_file_list.json"
    listed.write_text(json.dumps([f"shape_data/{name}" for name in objects]))
    for name, table in objects.items():
        (root / name).parent.mkdir(exist_ok=True)
        np.savetxt(root / f"{name}.txt", table, fmt="%.6f")


def table(labels: list[int], n: int = 40) -> np.ndarray:
    return np.column_stack([RNG.random((n, 6)), np.resize(labels, n)])


@pytest.fixture
def h5(tmp_path: Path) -> Path:
    for name, n in (("ply_data_train0", 3), ("ply_data_train1", 2), ("ply_data_test0", 1), ("ply_data_val0", 1)):
        category = np.arange(n) + 1
        pid = np.stack([np.resize(list(CATEGORIES.values())[c], 50) for c in category])
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["data"], file["pid"], file["label"] = RNG.random((n, 50, 3)).astype("f4"), pid, category[:, None]
    return tmp_path


def test_categories_and_parts():
    assert len(CLASSES) == 50 and len(CATEGORIES) == 16
    assert [part for parts in CATEGORIES.values() for part in parts] == list(range(50))
    assert CATEGORIES["Cap"] == (6, 7) and CATEGORIES["Motorbike"] == tuple(range(30, 36)) and CLASSES[49] == "Table 2"


def test_text_files(tmp_path):
    write_text(tmp_path, {"04379243/t": table([47, 49], 30), "02691156/a": table([0, 3])})
    write_text(tmp_path, {"02954340/c": table([6, 7])}, "test")
    train, test = opened(tmp_path), opened(tmp_path, "test")
    assert isinstance(train, SegmentSource) and len(train) == 2 and train.categories == CATEGORIES
    first = train.read(0)
    assert first.pos.shape == first.features["normal"].shape == (30, 3) and first.category == 15
    assert set(first.label.tolist()) == {47, 49} and train.name(0).endswith("04379243/t.txt")
    assert train.read(1).category == 0 and test.read(0).category == 2


def test_hdf5_files(h5):
    train = opened(h5)
    assert (len(train), len(opened(h5, "test")), len(opened(h5, "val"))) == (5, 1, 1)
    for index, category in enumerate((1, 2, 3, 1, 2)):
        cloud = train.read(index)
        assert cloud.category == category and set(cloud.label.tolist()) == set(list(CATEGORIES.values())[category])
        assert cloud.pos.shape == (50, 3) and not cloud.features
    assert train.name(3).endswith("ply_data_train1.h5[0]")


def test_defaults_are_those_of_part_segmentation():
    assert SEGMENT_SOURCES.find("shapenetpart").defaults == {
        "features": (), "normalize": "unit_sphere", "up": "y", "rotate": 0.0, "max_points": 2048,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows, kind, error",
    [
        (table([0, 4]), BadMask, "label 4 at point 1, expected 0 to 3, the parts of Airplane"),
        (table([0, 50]), BadMask, "label 50 at point 1 .and 19 more points., expected 0 to 49"),
        (table([0])[:, :6], UnreadableSample, "lines have 6 numbers, expected x y z nx ny nz label"),
    ],
)
def test_bad_objects(tmp_path, rows, kind, error):
    write_text(tmp_path, {"02691156/a": rows})
    with pytest.raises(kind, match=error):
        opened(tmp_path).read(0)


def test_damaged_and_missing_files(tmp_path):
    write_text(tmp_path, {"02691156/a": table([0]), "02691156/b": table([0])})
    (tmp_path / "02691156/a.txt").write_text("1 2 3 x")
    (tmp_path / "02691156/b.txt").unlink()
    source = opened(tmp_path)
    for index, error in ((0, "could not convert string"), (1, "no file .*b.txt")):
        with pytest.raises(UnreadableSample, match=error):
            source.read(index)
    (tmp_path / "02691156/a.txt").write_text("\n")
    with warnings.catch_warnings(), pytest.raises(UnreadableSample, match="it has no point"):
        warnings.simplefilter("error")
        source.read(0)
    (tmp_path / "train_test_split/shuffled_train_file_list.json").write_text('["shape_data/1/a"]')
    with pytest.raises(ValueError, match="'shape_data/1/a', expected shape_data/FOLDER/NAME with a folder of"):
        opened(tmp_path)
    (tmp_path / "train_test_split/shuffled_train_file_list.json").write_text('["a')
    with pytest.raises(ValueError, match="shuffled_train_file_list.json is not a list of names"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="no list .*shuffled_test_file_list.json"):
        opened(tmp_path, "test")


@pytest.mark.parametrize(
    "change, error",
    [
        ({"pid": None}, "train9.h5 has no key 'pid'; it has data, label"),
        ({"pid": np.zeros((2, 49), int)}, "pid .2, 49. and label .2,. int64, expected .2, 50. and .2,. integers"),
        ({"label": np.array([0, 16])}, "categories 0 to 16, expected 0 to 15"),
    ],
)
def test_bad_hdf5_files(h5, change, error):
    arrays = {"data": np.zeros((2, 50, 3)), "pid": np.zeros((2, 50), int), "label": np.zeros(2, int), **change}
    with h5py.File(h5 / "ply_data_train9.h5", "w") as file:
        file.update({key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=error):
        opened(h5)


def test_a_release_without_validation_files(h5):
    for path in h5.glob("ply_data_val*"):
        path.unlink()
    assert opened(h5, "val") is None


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither .*/synsetoffset2category.txt nor .*/ply_data_train[*].h5"):
        opened(tmp_path)
    with pytest.raises(
        ValueError, match="data.classes is set, but data.source is shapenetpart, which has labels of its"
    ):
        opened(tmp_path, classes=("a",))


def test_real_caps_in_the_text_form(tmp_path):
    folder = os.environ.get("POINTMIX_DATA", "")
    if not folder:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    files = sorted(Path(folder, "caps_parts").glob("val*.npz"))
    caps = {f"02954340/{p.stem}": np.column_stack([np.load(p)[k] for k in ("xyz", "normal", "label")]) for p in files}
    write_text(tmp_path, caps)
    source = opened(tmp_path)
    cfg = SegmentDataConfig(features=("normal",), normalize="unit_sphere", up="y", max_points=2048)
    cfg, _ = surveyed(cfg, source, range(len(source)))
    whole, part = eval_transform(cfg)(source.read(0)), train_transform(cfg)(source.read(0))
    assert len(whole.labels) == len(np.load(files[0])["label"]) and len(part.labels) == 2048
    assert whole.category.tolist() == part.category.tolist() == [2] and set(whole.labels.tolist()) == {6, 7}
    assert np.array_equal(whole.labels, np.load(files[0])["label"])
