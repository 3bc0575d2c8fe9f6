"""S3DIS and ScanNet: a folder a scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointmix.data.clouds.features import surveyed
from pointmix.data.segment import sources  # noqa: F401  registers the sources
from pointmix.data.segment.clouds.transforms import eval_transform
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.source import SEGMENT_SOURCES, SegmentSource
from pointmix.io.errors import BadMask

RNG = np.random.default_rng(0)


def write(folder: Path, classes: int, n: int = 60, **arrays: np.ndarray) -> None:
    folder.mkdir(parents=True)
    label = np.arange(n) % (classes + 1) - 1
    files = {"coord": RNG.random((n, 3)).astype(np.float32), "color": RNG.integers(0, 256, (n, 3), dtype=np.uint8),
             "normal": RNG.random((n, 3)).astype(np.float32), "segment": label, "instance": label}  # fmt: skip
    for name, array in {**files, **arrays}.items():
        np.save(folder / f"{name}.npy", array)


def opened(source: str, root: Path, split: str, **settings):
    cfg = SegmentDataConfig(source=source, root=str(root), **settings)
    entry = SEGMENT_SOURCES.find(source)
    entry.check(cfg)
    return entry.open(cfg, split)


def names(source: SegmentSource) -> list[str]:
    return [str(Path(source.name(i)).relative_to(Path(source.name(i)).parents[1])) for i in range(len(source))]


@pytest.fixture
def s3dis(tmp_path: Path) -> Path:
    for room in ("Area_1/office_2", "Area_1/office_1", "Area_5/hallway_1", "Area_6/office_1"):
        write(tmp_path / room, 13)
    return tmp_path


@pytest.fixture
def scannet(tmp_path: Path) -> Path:
    for scene in ("train/scene0000_00", "val/scene0001_00", "test/scene0002_00"):
        write(tmp_path / scene, 20)
    write(tmp_path / "train/scene0003_00", 20, segment20=np.full(60, 19), segment=np.full(60, 150))
    return tmp_path


def test_s3dis_is_split_by_area(s3dis):
    train, test = opened("s3dis", s3dis, "train"), opened("s3dis", s3dis, "test")
    assert isinstance(train, SegmentSource) and opened("s3dis", s3dis, "val") is None
    assert names(train) == ["Area_1/office_1", "Area_1/office_2", "Area_6/office_1"]
    assert names(test) == ["Area_5/hallway_1"]
    assert names(opened("s3dis", s3dis, "test", test_area=1)) == ["Area_1/office_1", "Area_1/office_2"]
    assert "Area_5/hallway_1" in names(opened("s3dis", s3dis, "train", test_area=1))
    assert len(train.classes) == len(train.palette) == 13 and train.classes[9:11] == ("sofa", "bookcase")
    cloud = train.read(0)
    assert sorted(set(cloud.label.tolist())) == list(range(-1, 13)) and sorted(cloud.features) == ["normal", "rgb"]


def test_scannet_is_tested_on_its_validation_folder(scannet):
    train, test = opened("scannet", scannet, "train"), opened("scannet", scannet, "test")
    assert names(train) == ["train/scene0000_00", "train/scene0003_00"] and names(test) == ["val/scene0001_00"]
    assert opened("scannet", scannet, "val") is None
    assert len(train.classes) == len(train.palette) == 20 and train.classes[15] == "shower curtain"
    assert train.read(0).label.max() == 19 and set(train.read(1).label.tolist()) == {19}


def test_a_scene_to_a_sample(s3dis):
    source = opened("s3dis", s3dis, "train")
    cfg, _ = surveyed(SegmentDataConfig(source="s3dis", features=("rgb", "normal")), source, range(len(source)))
    assert cfg.feature_scale == {"rgb": 255, "normal": 1}
    batch = eval_transform(cfg)(source.read(1))
    assert batch.points.feat.shape == (60, 6) and batch.labels.tolist() == source.read(1).label.tolist()
    assert batch.points.feat[:, :3].max() <= 1


@pytest.mark.parametrize("source", ["s3dis", "scannet"])
def test_labels_beyond_the_classes_and_missing_ones(source, tmp_path):
    folder = {"s3dis": "Area_2/a", "scannet": "train/a"}[source]
    write(tmp_path / folder, 20, segment=np.full(60, 20))
    with pytest.raises(BadMask, match=f"{folder}: label 20 at point 0 .and 59 more points., expected 0 to"):
        opened(source, tmp_path, "train").read(0)
    (tmp_path / folder / "segment.npy").unlink()
    with pytest.raises(FileNotFoundError, match=f"segment.npy in .*{folder}, the labels of the scene"):
        opened(source, tmp_path, "train")


@pytest.mark.parametrize(
    "source, settings, error",
    [
        ("s3dis", {"classes": ("a",)}, "data.classes is set, but data.source is s3dis, which has labels of its own"),
        ("scannet", {"label_map": {0: 1}}, "data.label_map is set, but data.source is scannet"),
        ("scannet", {"test_area": 1}, "data.test_area is set, but data.source is scannet, which does not use it"),
        ("s3dis", {"train_files": ("*",)}, "data.train_files is set, but data.source is s3dis"),
        ("s3dis", {}, "no folder .*/Area_1, expected Area_1 to Area_6 in data.root"),
        ("scannet", {}, "no folder .*/train, expected .*/train/SCENE/coord.npy"),
    ],
)
def test_settings_that_do_not_fit(source, settings, error, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        opened(source, tmp_path, "train", **settings)
