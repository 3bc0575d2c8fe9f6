"""Data sets: folders of images, tar files, shards, HDF5 files of clouds."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pointmix.data.clouds.hdf5 import CloudFiles
from pointmix.data.clouds.sources.modelnet40 import open_modelnet40
from pointmix.data.clouds.sources.scanobjectnn import open_scanobjectnn
from pointmix.data.clouds.verify import extract
from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import decode
from pointmix.data.images.sources.folder import open_tar
from pointmix.data.images.sources.wds import open_shards
from pointmix.data.images.splits import build_data, open_split
from pointmix.io.errors import UnreadableSample


def png(side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def tar(path: str, *members: tuple[tarfile.TarInfo, io.BytesIO]) -> bytes:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for info, content in members:
            file.addfile(info, content)
    return Path(path).read_bytes()


def sparse(name: str, size: int) -> bytes:
    """A member of the old GNU kind that is all hole."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386:410] = b"%011o\0%011o\0" % (size, 0)
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block[:512]) + bytes(1024)


def shard(*members: tuple[tarfile.TarInfo, io.BytesIO]) -> None:
    tar("s/train-0.tar", *members)


def write(path: str, content: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


SHARDS: dict[str, Callable[[], object]] = {
    "no shards": lambda: Path("s").mkdir(),
    "empty": lambda: write("s/train-0.tar", b""),
    "text": lambda: write("s/train-0.tar", b"hello" * 300),
    "zeros": lambda: write("s/train-0.tar", bytes(10_240)),
    "compressed": lambda: write(
        "s/train-0.tar", gzip.compress(tar("x.tar", member("a.png", png()), member("a.cls", b"0")))
    ),
    "cut in its header": lambda: write("s/train-0.tar", tar("x.tar", member("a.png", png()))[:300]),
    "no label": lambda: shard(member("a.png", png())),
    "no image": lambda: shard(member("a.cls", b"0")),
    "a word for a label": lambda: shard(member("a.png", png()), member("a.cls", b"cat")),
    "an empty label": lambda: shard(member("a.png", png()), member("a.cls", b"")),
    "a label below zero": lambda: shard(member("a.png", png()), member("a.cls", b"-1")),
    "a long label": lambda: shard(member("a.png", png()), member("a.cls", b"1" * 10_000)),
    "a label as a link": lambda: shard(
        member("a.png", png()), member("a.cls", type=tarfile.SYMTYPE, linkname="/etc/hostname")
    ),
    "an image as a link": lambda: shard(
        member("a.cls", b"0"), member("a.png", type=tarfile.SYMTYPE, linkname="/etc/hostname")
    ),
    "an image as a device": lambda: shard(member("a.cls", b"0"), member("a.png", type=tarfile.CHRTYPE)),
    "a label of 8 GiB of nothing": lambda: write("s/train-0.tar", sparse("a.cls", 8**11 - 1)),
    "an image of 8 GiB of nothing": lambda: write("s/train-0.tar", sparse("a.png", 8**11 - 1)),
    "terminal codes in a name": lambda: shard(member("\x1b[31ma.png", png())),
    "a pipe": lambda: (Path("s").mkdir(), os.mkfifo("s/train-0.tar")),
    "names of classes in a pipe": lambda: (
        shard(member("a.png", png()), member("a.cls", b"0")),
        os.mkfifo("s/classes.txt"),
    ),
    "5 MB of names": lambda: (
        shard(member("a.png", png()), member("a.cls", b"0")),
        write("s/classes.txt", b"cat\n" * 1_300_000),
    ),
}


@pytest.mark.parametrize("case", SHARDS)
def test_shards(case, folder, refused):
    SHARDS[case]()
    refused(lambda: open_shards("s", "train"))


TARS: dict[str, Callable[[], object]] = {
    "empty": lambda: write("t/train.tar", b""),
    "text": lambda: write("t/train.tar", b"hello" * 300),
    "no image": lambda: tar("t/train.tar", member("cat/a.txt", b"x")),
    "an image as a link": lambda: tar(
        "t/train.tar", member("cat/a.png", type=tarfile.SYMTYPE, linkname="/etc/hostname")
    ),
    "cut": lambda: write("t/train.tar", tar("x.tar", member("cat/a.png", png(64)))[:700]),
    "a tar in it that is none": lambda: tar("t/train.tar", member("cat.tar", b"hello" * 300)),
    "an image of 8 GiB of nothing": lambda: write("t/train.tar", sparse("cat/a.png", 8**11 - 1)),
    "a pipe": lambda: (Path("t").mkdir(), os.mkfifo("t/train.tar")),
}


@pytest.mark.parametrize("case", TARS)
def test_tar_files(case, folder, refused):
    TARS[case]()
    assert "train.tar" in refused(lambda: open_tar("t/train.tar"))


def test_image_folders_of_torchvision_choose_no_other_decoder(folder):
    write("t/cat/0.png", png())
    Image.new("RGB", (8, 8)).save("t/cat/1.png", "TGA")
    Image.new("1", (12_000, 10_000)).save("t/cat/2.png")
    source = open_split(DataConfig(source="torch/image_folder", root="t"), "train")
    assert decode(source, 0, "L").size == (8, 8)
    for index, why in ((1, "not an image in a format that Pillow knows"), (2, "the image of 12000 x 10000 has")):
        with pytest.raises(UnreadableSample, match=why):
            decode(source, index, "L")


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("sprung", "w")


def test_a_pickle_beside_large_tar_files_is_neither_read_nor_written(folder):
    tar("t/train/cat.tar", member("a.png", png()))
    with open("t/train/zero.tar", "wb") as file:
        file.truncate(11 << 30)  # timm looks for a pickle above 10 GB; a file of holes takes no room
    trap = pickle.dumps(Trap())
    for name in ("_train_tarinfos.pickle", "_t_tarinfos.pickle"):
        Path("t/train", name).write_bytes(trap)
        Path("t", name).write_bytes(trap)
    source = open_split(DataConfig(source="folder", root="t"), "train")
    assert source.classes == ["cat"] and decode(source, 0, "L").size == (8, 8)
    assert not Path("sprung").exists()
    Path("t/train/_train_tarinfos.pickle").unlink()
    open_tar(Path("t/train"))
    assert not Path("t/train/_train_tarinfos.pickle").exists()


FOLDERS: dict[str, tuple[Callable[[], object], dict[str, object]]] = {
    "no root": (lambda: None, {"root": ""}),
    "no folder": (lambda: None, {"root": "gone"}),
    "a file for a root": (lambda: write("f", b""), {"root": "f"}),
    "no split": (lambda: Path("d").mkdir(), {"root": "d"}),
    "no classes": (lambda: Path("d/train").mkdir(parents=True), {"root": "d"}),
    "a class without images": (lambda: Path("d/train/cat").mkdir(parents=True), {"root": "d"}),
    "text alone": (lambda: write("d/train/cat/a.txt", b"x"), {"root": "d"}),
    "a split elsewhere": (lambda: Path("d").mkdir(), {"root": "d", "split": "../../etc"}),
    "unknown source": (lambda: None, {"source": "ftp/x"}),
    "streams": (lambda: None, {"source": "hfids/x"}),
    "torch without a root": (lambda: None, {"source": "torch/cifar10", "root": None}),
    "torch, unknown": (lambda: None, {"source": "torch/nothing", "root": "."}),
    "torch, not there": (lambda: None, {"source": "torch/cifar10", "root": "."}),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(case, folder, refused):
    make, settings = FOLDERS[case]
    make()
    settings = {"source": "folder", "root": "d"} | settings
    split = settings.pop("split", "train")
    refused(lambda: open_split(DataConfig(**settings), split))


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"hello"),
    "cut": lambda path: path.write_bytes(png(64)[:60]),
    "120 megapixels": lambda path: Image.new("1", (12_000, 10_000)).save(path),
    "a strip that resizing makes large": lambda path: Image.new("1", (20_000_000, 1)).save(path),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("gone"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_one_bad_image_is_skipped_and_counted(case, folder, refused):
    for name in ("train/cat/0", "train/dog/0", "train/dog/1", "val/cat/0", "val/dog/0"):
        write(f"d/{name}.png", png())
    DAMAGED[case](Path("d/val/dog/1.png"))
    cfg = DataConfig(source="folder", root="d", img_size=8, val_fraction=0)
    splits = build_data(cfg, batch_size=1, eval_batch_size=2, seed=0)
    assert sum(len(targets) for _, targets in splits.test) == 2
    ((file, reason),) = splits.skipped()
    assert file.endswith("val/dog/1.png") and reason.isprintable()
    assert reason in refused(lambda: build_all(cfg))


def build_all(cfg: DataConfig) -> None:
    splits = build_data(replace(cfg, strict=True), batch_size=1, eval_batch_size=2, seed=0)
    list(splits.test)


def clouds(**arrays) -> None:
    arrays = {"data": np.ones((2, 4, 3), "f4"), "label": np.array([0, 1])} | arrays
    with h5py.File("a.h5", "w") as file:
        for key, value in arrays.items():
            if callable(value):
                value(file)
            elif value is not None:
                file[key] = value


SETS: dict[str, dict[str, object]] = {
    "no data": {"data": None},
    "no labels": {"label": None},
    "no colors": {},
    "data in two dimensions": {"data": np.ones((2, 3))},
    "data in integers": {"data": np.ones((2, 4, 3), int)},
    "data in text": {"data": np.array([[["a"] * 3] * 4] * 2, dtype="S1")},
    "no points": {"data": np.ones((2, 0, 3))},
    "labels in floats": {"label": np.zeros(2)},
    "more labels than clouds": {"label": np.arange(3)},
    "labels below zero": {"label": np.array([-1, 0])},
    "labels with a gap": {"label": np.array([0, 5])},
    "mask of another size": {"mask": np.ones((2, 5))},
    "mask as a group": {"mask": lambda f: f.create_group("mask")},
    "mask in text": {"mask": np.full((2, 4), b"x")},
    "mask in chunks of 10^10": {
        "data": lambda f: f.create_dataset("data", (10**7, 1000, 3), "f4", chunks=(1, 1000, 3)),
        "label": lambda f: f.create_dataset("label", (10**7,), "u1", chunks=(1024,)),
        "mask": lambda f: f.create_dataset("mask", (10**7, 1000), "u1", chunks=(4 * 10**6, 1000)),
    },
    "data as a group": {"data": lambda f: f.create_group("data")},
    "10^12 clouds": {
        "data": lambda f: f.create_dataset("data", (10**12, 4, 3), "f4", chunks=(64, 4, 3)),
        "label": lambda f: f.create_dataset("label", (10**12,), "i8", chunks=(1024,)),
    },
    "a cloud of 10^10 points": {"data": lambda f: f.create_dataset("data", (2, 10**10, 3), "f4", chunks=(1, 64, 3))},
    "classes in numbers": {"x": lambda f: f.attrs.__setitem__("classes", np.arange(3))},
    "values elsewhere": {
        "data": lambda f: f.create_dataset("data", (2, 4, 3), "f4", external=[("/etc/passwd", 0, 96)])
    },
    "a link elsewhere": {"data": lambda f: f.__setitem__("data", h5py.ExternalLink("b.h5", "/data"))},
    "an empty array": {"data": h5py.Empty("f4")},
}


@pytest.mark.parametrize("case", SETS)
def test_sets_of_clouds(case, folder, refused):
    clouds(**SETS[case])
    assert "a.h5" in refused(lambda: CloudFiles(["a.h5"], features=["rgb"] if case == "no colors" else []))


PLACES: dict[str, Callable[[], object]] = {
    "no file": lambda: CloudFiles(["gone.h5"]),
    "a pipe": lambda: (os.mkfifo("a.h5"), CloudFiles(["a.h5"])),
    "a folder": lambda: (Path("a.h5").mkdir(), CloudFiles(["a.h5"])),
    "ScanObjectNN not there": lambda: open_scanobjectnn(".", split="train", variant="obj_bg"),
    "ModelNet40 not there": lambda: open_modelnet40(".", split="train"),
    "ModelNet40 names a file elsewhere": lambda: (
        Path("train_files.txt").write_text("/etc/passwd\n"),
        open_modelnet40(".", split="train"),
    ),
    "an archive that is none": lambda: (
        write("a.zip", b"hello"),
        extract(Path("a.zip"), Path("out"), {"a.h5": "a.h5"}),
    ),
    "an archive in a pipe": lambda: (os.mkfifo("a.zip"), extract(Path("a.zip"), Path("out"), {"a.h5": "a.h5"})),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_of_clouds(case, folder, refused):
    refused(PLACES[case])
