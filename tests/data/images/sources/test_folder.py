from __future__ import annotations

import importlib.util
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import decode
from pointmix.data.images.sources.folder import open_folder, open_local
from pointmix.data.images.splits import build_data, open_split
from pointmix.data.splits import check_same_classes

CALL = {"batch_size": 8, "eval_batch_size": 8, "seed": 0}


def test_class_folders_name_the_classes_however_deep_the_files_lie(folder):
    (folder / "train/cat/sub").mkdir()
    (folder / "train/cat/00.jpg").rename(folder / "train/cat/sub/00.jpg")
    source = open_folder(folder / "train")
    assert source.classes == ["cat", "dog"]
    assert np.bincount(source.targets).tolist() == [20, 10]
    assert decode(source, 29, "RGB").size == (16, 16) and source.name(29).endswith("train/dog/09.jpg")


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_the_test_split_is_found(folder, name):
    (folder / "val").rename(folder / name)
    assert len(open_local(str(folder), None).targets) == 7


def test_missing_folders(folder):
    with pytest.raises(ValueError, match="data.root is not set"):
        open_local("", "train")
    with pytest.raises(FileNotFoundError, match="no folder .*/nowhere"):
        open_local(str(folder / "nowhere"), "train")
    with pytest.raises(FileNotFoundError, match=r"has no training \(nor .tar\); it has train, val"):
        open_local(str(folder), "training")
    shutil.rmtree(folder / "val")
    with pytest.raises(FileNotFoundError, match="has no val or validation or test .*; it has train"):
        open_local(str(folder), None)


def test_folder_without_classes(folder):
    with pytest.raises(ValueError, match="val/cat has no class folders"):
        open_folder(folder / "val/cat")


def test_empty_class_folders_are_named(folder):
    (folder / "train/bird").mkdir()
    (folder / "train/wolf").mkdir()
    (folder / "train/wolf/notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="no image in class folder bird, wolf of .*train; expected files ending in"):
        open_folder(folder / "train")


def test_different_classes_are_named(folder):
    (folder / "val/dog").rename(folder / "val/wolf")
    with pytest.raises(ValueError, match="different classes: dog only in train; wolf only in test"):
        build_data(DataConfig(source="folder", root=str(folder), img_size=16), **CALL)
    with pytest.raises(ValueError, match="and 5 more only in train"):
        check_same_classes([str(i) for i in range(10)], [], "val")


def pack(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(folder)):
            tar.add(folder / name, arcname=name)


def test_tar_files_give_what_folders_give(folder, tmp_path):
    tars = tmp_path / "tars"
    (tars / "val").mkdir(parents=True)
    pack(folder / "train", tars / "train.tar")  # one file for the split
    for name in ("cat", "dog"):
        pack(folder / "val" / name, tars / "val" / f"{name}.tar")  # one file a class
    settings = {"source": "folder", "img_size": 16, "pad_crop": 2}
    plain = build_data(DataConfig(root=str(folder), **settings), **CALL)
    packed = build_data(DataConfig(root=str(tars), workers=2, **settings), **CALL)
    assert packed.classes == plain.classes
    for a, b in ((plain.train, packed.train), (plain.val, packed.val)):
        for (images, targets), (others, labels) in zip(a, b, strict=True):
            assert (images.pixels == others.pixels).all() and (targets == labels).all()
    (images, targets), (others, labels) = next(iter(plain.test)), next(iter(packed.test))
    images, others = images.pixels, others.pixels
    order = [int((others == image).flatten(1).all(1).nonzero()) for image in images]  # files of all tars are sorted
    assert sorted(order) == list(range(7)) and (labels[order] == targets).all()


def test_a_damaged_tar_file(tmp_path):
    (tmp_path / "train.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(ValueError, match="cannot read images from .*train.tar"):
        open_local(str(tmp_path), "train")


def test_unknown_and_streaming_sources():
    with pytest.raises(
        ValueError, match="data.source 'cifar': expected one of digits, folder, hfds/NAME, torch/NAME, wds"
    ):
        open_split(DataConfig(source="cifar"), None)
    with pytest.raises(ValueError, match="'tfds/mnist' can only be streamed"):
        open_split(DataConfig(source="tfds/mnist"), None)


def test_torchvision_sets(tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 20), ("t10k", 10)):  # MNIST's own format: a magic number, the sides, the bytes
        images = np.arange(count * 28 * 28).astype(np.uint8)
        header = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = np.array([0x801, count], dtype=">i4").tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    cfg = DataConfig(source="torch/mnist", root=str(tmp_path), in_chans=1, img_size=28, pad_crop=2, val_fraction=0)
    splits = build_data(cfg, **CALL)
    assert len(splits.classes) == 10 and splits.steps_per_epoch == 2
    assert torch.cat([targets for _, targets in splits.test]).tolist() == list(range(10))
    with pytest.raises(ValueError, match="'torch/cifar10': Dataset not found"):
        open_split(DataConfig(source="torch/cifar10", root=str(tmp_path)), None)
    with pytest.raises(ValueError, match="data.root is not set; .* 'torch/cifar10'"):
        open_split(DataConfig(source="torch/cifar10"), None)


def test_hugging_face_sets(folder, tmp_path_factory):
    spec = importlib.util.find_spec("datasets")
    if spec is None or spec.origin is None:  # without an origin it is the repository's folder of that name
        pytest.skip("Hugging Face's library 'datasets' is not installed")
    cache = str(tmp_path_factory.mktemp("cache"))
    cfg = DataConfig(source=f"hfds/{folder}", root=cache)  # the library reads image folders, too
    source, original = open_split(cfg, "train"), open_folder(folder / "train")
    assert source.classes == original.classes and source.targets.tolist() == original.targets.tolist()
    assert decode(source, 3, "RGB").tobytes() == decode(original, 3, "RGB").tobytes()
    assert len(open_split(cfg, None).targets) == 7
