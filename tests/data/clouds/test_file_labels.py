"""Data sets whose files hold many clouds, with labels in the files, in class folders or in a CSV file."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.files import MOST_OPEN
from pointmix.data.clouds.sources.folder import open_split
from pointmix.data.clouds.splits import PointSplits, build_points, build_points_test

CALL = {"batch_size": 4, "eval_batch_size": 4, "seed": 0}


def clouds(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(size, 3)) for size in rng.integers(3, 40, count)]


def ragged(found: Sequence[np.ndarray], **arrays: object) -> dict[str, object]:
    ends = np.cumsum([len(cloud) for cloud in found])
    return {"pos": np.concatenate(found), "ptr": np.append(0, ends), **arrays}


def write(path: Path, arrays: dict[str, object], **attrs: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch.save({name: torch.as_tensor(np.asarray(value)) for name, value in arrays.items()}, path)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
            file.attrs.update(attrs)
    return path


def config(root: Path, **data) -> PointDataConfig:
    return PointDataConfig(source="folder", root=str(root), **{"points": None, **data})


def build(root: Path, **data) -> PointSplits:
    return build_points(config(root, **data), **CALL)


def seen(splits: PointSplits) -> tuple[list[int], list[int]]:
    """Sizes and labels of the test clouds, in their order."""
    batches = list(splits.test)
    return [n for p, _ in batches for n in p.ptr.diff().tolist()], [t for _, ts in batches for t in ts.tolist()]


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".pt"])
def test_a_file_a_split(tmp_path, suffix):
    train, test = clouds(24), clouds(7, seed=1)
    write(tmp_path / f"train{suffix}", ragged(train, label=np.arange(24) % 3))
    write(tmp_path / f"test{suffix}", ragged(test, label=np.array([1, 0, 1, 1, 0, 1, 0])))
    splits = build(tmp_path, workers=2 if suffix == ".h5" else 0)
    assert not splits.train.dataset.source.files._files  # nothing is open that worker processes would share
    assert splits.classes == ["0", "1", "2"] and len(splits.train.dataset) == 21
    assert seen(splits) == ([len(cloud) for cloud in test], [1, 0, 1, 1, 0, 1, 0])
    assert splits.test.dataset.source.name(3) == f"{tmp_path}/test{suffix}[3]"
    assert [len(targets) for _, targets in splits.train] == [4] * 5 and not splits.skipped()
    alone, names = build_points_test(
        PointDataConfig(**{**vars(splits.config), "classes": ("a", "b", "c")}), batch_size=4
    )
    assert names == ["a", "b", "c"] and sum(len(t) for _, t in alone) == 7
    copy = pickle.loads(pickle.dumps(splits.test.dataset.source))  # for spawned workers
    assert np.array_equal(copy.read(2).pos, test[2])


def test_folders_of_files_with_named_labels_a_group_a_cloud(tmp_path):
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        for part in range(2):
            groups = {f"c{i}/xyz": cloud for i, cloud in enumerate(clouds(count))}
            with h5py.File(write(tmp_path / split / f"{part}.h5", groups), "a") as file:
                for i in range(count):
                    file[f"c{i}"].attrs["class"] = ("cup", "box")[i % 2]
    splits = build(tmp_path)
    assert splits.classes == ["box", "cup"] and seen(splits)[1] == [1, 0, 1] * 2
    assert len(splits.train.dataset) == 16 and len(splits.val.dataset) == 6
    with pytest.raises(
        ValueError, match="cannot read the labels of .*0.h5: it has none, expected .* under kind .data.t"
    ):
        build(tmp_path, target_key="kind")
    with pytest.raises(ValueError, match="train has class box, which is not among cup, cone"):
        build(tmp_path, classes=("cup", "cone"))


def test_lists_of_dicts_in_torch_files(tmp_path):
    for split in ("train", "test"):
        listed = [{"pos": torch.from_numpy(c), "label": "ab"[i % 2]} for i, c in enumerate(clouds(12))]
        torch.save(listed, tmp_path / f"{split}.pt")
    splits = build(tmp_path)
    assert splits.classes == ["a", "b"] and seen(splits)[0] == [len(cloud) for cloud in clouds(12)]


def test_names_of_classes_in_the_files(tmp_path):
    dense = {"data": np.stack([cloud[:3] for cloud in clouds(12)]), "label": np.arange(12) % 2}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.h5", dense, classes="cup,box,cone")
    assert build(tmp_path).classes == ["cup", "box", "cone"]
    write(tmp_path / "test.h5", dense, classes="box,cup,cone")  # labels of another order are the same classes
    splits = build(tmp_path)
    assert splits.classes == ["cup", "box", "cone"] and seen(splits)[1][:4] == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="attribute classes is cup, box, cone and data.classes box, cup, cone"):
        build(tmp_path, classes=("box", "cup", "cone"))
    write(tmp_path / "train.h5", dense, classes="cup,box,cup")
    with pytest.raises(ValueError, match="train.h5: the attribute classes names cup twice"):
        build(tmp_path)


def test_class_folders_and_csv_files_with_files_of_many_clouds(tmp_path):
    for split in ("train", "test"):
        for place, name in enumerate(("box", "cup")):
            found = clouds(6, seed=place)
            write(tmp_path / split / name / "many.npz", ragged(found))
            write(tmp_path / split / name / "one.npz", {"pos": found[0]})
    (tmp_path / "train/cup/torn.npz").write_bytes(b"PK")
    write(tmp_path / "train/beside.h5", ragged(clouds(2)))
    with pytest.warns(UserWarning, match="train: 1 cloud beside the class folders is left out"):
        splits = build(tmp_path, val_fraction=0.0)
    assert len(splits.train.dataset) == 15 and seen(splits)[1] == [0] * 7 + [1] * 7
    list(splits.train)
    assert [Path(name).name for name, _ in splits.skipped()] == ["torn.npz"]
    (tmp_path / "mine.csv").write_text(
        "file,label,split\ntrain/box/many.npz,b,train\ntrain/cup/many.npz,c,train\ntest/cup/one.npz,c,test\n"
    )
    listed = build(tmp_path, labels="mine.csv", val_fraction=0.0)
    assert len(listed.train.dataset) == 12 and listed.test.dataset.source.name(0).endswith("one.npz")


def test_only_headers_are_read_on_opening(tmp_path, monkeypatch):
    for i in range(MOST_OPEN + 2):
        write(tmp_path / f"train/{i:02}.npz", ragged(clouds(2), label=np.arange(2), time=np.arange(3)))
    read = []
    real = np.lib.format.read_array
    monkeypatch.setattr(np.lib.format, "read_array", lambda *args, **kwargs: read.append(1) or real(*args, **kwargs))
    source = open_split(config(tmp_path), "train")
    assert len(source) == 2 * (MOST_OPEN + 2) and len(read) == 2 * (MOST_OPEN + 2)  # ptr and label of each
    for index in (*range(len(source)), 0):
        source.read(index)
    assert len(source.files._files) == MOST_OPEN


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"label": np.arange(5)}, r"train.h5: label is \(5,\), expected \(6,\), one a cloud"),
        ({"ptr": np.array([0, 9, 4])}, "train.h5: ptr must rise, it goes from 9 to 4 at cloud 1"),
        ({"ptr": np.array([0, 9, 9, 10**6])}, "train.h5: ptr divides 1000000 points into 3 clouds, expected all"),
        ({"label": np.array([0, 1, 3, 0, 1, 3])}, r"train.h5: labels \[0, 1, 3\] are not 0 to 3 without a gap"),
        ({"pos": np.zeros((0, 4, 3)), "label": np.zeros(0, int)}, r"train.h5: pos is \(0, 4, 3\), it holds no cloud"),
        ({}, "train.h5: it has none, expected one a cloud under label, labels, segment or the like .* it has pos"),
    ],
)
def test_labels_and_clouds_that_do_not_fit(tmp_path, arrays, message):
    write(tmp_path / "train.h5", {**ragged(clouds(6)), **arrays})
    with pytest.raises(ValueError, match=message) as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_agree(tmp_path):
    found = clouds(4)
    write(tmp_path / "train/a.h5", ragged(found, label=np.arange(4)))
    write(tmp_path / "train/b.h5", ragged(found, label=["a", "b", "c", "d"]))
    with pytest.raises(
        ValueError, match="train .2 files.: the labels of some files are numbers, those of others are te"
    ):
        build(tmp_path)
    write(tmp_path / "train/b.h5", ragged(found, label=np.arange(4)), classes="a,b,c,d")
    with pytest.raises(ValueError, match="the attribute classes differs between the files"):
        build(tmp_path)
    write(tmp_path / "train/b.h5", ragged(found, label=np.arange(4)))
    with pytest.raises(FileNotFoundError, match=r"no folder .*/test, expected test/CLASS/\*.* or test.h5 with labels"):
        build(tmp_path)


def test_files_beside_those_with_labels(tmp_path):
    dense = {"data": np.stack([cloud[:3] for cloud in clouds(8)]), "label": np.arange(8) % 2}
    write(tmp_path / "train/a.h5", dense)
    (tmp_path / "train/b.xyz").write_text("0 0 0\n1 1 1\n")
    write(tmp_path / "test.h5", dense)
    write(tmp_path / "test.old.h5", dense)  # another name
    (tmp_path / "test.npz").mkdir()
    with pytest.warns(UserWarning, match="train: 1 cloud beside the files with labels is left out"):
        splits = build(tmp_path)
    assert len(splits.test.dataset) == 8


def test_an_empty_file_in_a_class_folder_is_counted(tmp_path):
    for split in ("train", "test"):
        for name in ("box", "cup"):
            write(tmp_path / split / name / "many.npz", ragged(clouds(4)))
    write(tmp_path / "test/cup/empty.npz", {"data": np.zeros((0, 4, 3))})
    splits = build(tmp_path)
    list(splits.test)
    assert [Path(name).name for name, _ in splits.skipped()] == ["empty.npz"]
