"""Hidden files and folders, what other programs leave behind, and lists of names, in every kind of data set."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pointmix.data.clouds.sources.modelnet40 import open_modelnet40
from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import decode
from pointmix.data.images.sources.folder import open_folder, open_local
from pointmix.data.images.sources.wds import open_shards
from pointmix.data.images.splits import build_test
from pointmix.data.paths import is_junk, read_lines

JUNK = [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".hidden", "#recycle"]


def picture(color: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), color).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", [*JUNK, "._0.jpg", "Thumbs.db", "cat/.x/0.jpg", "__macosx/cat/0.jpg", "./.a/b"])
def test_junk(name):
    assert is_junk(name) and is_junk(Path(name))


@pytest.mark.parametrize("name", ["cat", "./cat/0.jpg", "../cat/0.v2.jpg", "thumbs", "_cat", "eaDir", "", "."])
def test_data(name):
    assert not is_junk(name)


def test_names_are_the_lines_without_marks(tmp_path):
    for content in (
        b"cat\ndog\n",
        "\ufeffcat\r\n dog \r\n\r\n".encode(),
        "cat\ndog".encode("utf-16"),
    ):
        (tmp_path / "names.txt").write_bytes(content)
        assert read_lines(tmp_path / "names.txt") == ["cat", "dog"]
    (tmp_path / "names.txt").write_text("cat\n\ndog")
    with pytest.raises(ValueError, match="names.txt: line 2 is empty"):
        read_lines(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(ValueError, match="names.txt is not text in UTF-8: .* at byte 1"):
        read_lines(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("\n")
    assert read_lines(tmp_path / "names.txt") == []


# ---- folders --------------------------------------------------------------------------------------------------------


def test_junk_is_no_class_and_no_image(folder):
    expected = open_folder(folder / "train")
    for name in JUNK:
        for place in (folder / "train", folder / "train/cat"):
            (place / name).mkdir()
            (place / name / "0.jpg").write_bytes(picture())
    (folder / "train/cat/._00.jpg").write_bytes(b"Mac OS X")
    (folder / "train/Thumbs.db").write_bytes(b"")
    with pytest.warns(UserWarning, match="train: #recycle, .hidden, .ipynb_checkpoints, @eaDir, __MACOSX skipped"):
        found = open_folder(folder / "train")
    assert found.classes == expected.classes == ["cat", "dog"]
    assert [found.name(i) for i in range(len(found.targets))] == [expected.name(i) for i in range(30)]
    assert np.array_equal(found.targets, expected.targets)


def test_a_data_set_may_lie_in_a_hidden_folder(folder):
    (folder / "train").rename(folder / ".cache")
    assert len(open_folder(str(folder / ".cache")).targets) == 30


def test_a_class_of_nothing_but_junk_is_empty(folder):
    (folder / "train/wolf").mkdir()
    (folder / "train/wolf/._0.jpg").write_bytes(b"Mac OS X")
    with pytest.raises(ValueError, match="no image in class folder wolf"):
        open_folder(folder / "train")
    (folder / "empty/@eaDir").mkdir(parents=True)
    with pytest.raises(ValueError, match="empty has no class folders"):
        open_folder(folder / "empty")


def test_links_end_and_do_not_mix_classes(folder):
    expected = open_folder(folder / "train")
    for name, target in (("up", ".."), ("here", "."), ("top", "../..")):
        os.symlink(target, folder / "train/cat" / name)
    os.symlink("loop.jpg", folder / "train/cat/loop.jpg")
    found = open_folder(folder / "train")
    names = [found.name(i) for i in range(len(found.targets))]
    assert names.pop(20).endswith("cat/loop.jpg")  # a file that cannot be read
    assert names == [expected.name(i) for i in range(30)] and found.targets.tolist() == [0] * 21 + [1] * 10


def test_a_class_may_be_a_link(folder):
    (folder / "train/cat").rename(folder / "cats")
    os.symlink(folder / "cats", folder / "train/cat")
    assert open_folder(folder / "train").targets.tolist() == [0] * 20 + [1] * 10


def test_a_link_to_nowhere_is_named_as_damaged(folder):
    os.symlink("gone.jpg", folder / "val/cat/04.jpg")
    test, _ = build_test(DataConfig(source="folder", root=str(folder), img_size=16), batch_size=8)
    assert sum(len(targets) for _, targets in test) == 7
    assert list(test.failed) == [str(folder / "val/cat/04.jpg")] and "no image file" in str(test.failed)


def test_classes_that_differ_in_case_are_told(folder):
    (folder / "train/dog").rename(folder / "train/Cat")
    with pytest.warns(UserWarning, match="train: classes Cat and cat differ only in case"):
        assert open_folder(folder / "train").classes == ["Cat", "cat"]


# ---- tar files ------------------------------------------------------------------------------------------------------


def test_junk_in_a_tar_file(tmp_path):
    names = [
        "./cat/0.png",
        "./cat/._0.png",
        "__MACOSX/cat/._0.png",
        ".ipynb_checkpoints/0.png",
        "@eaDir/0.png",
        "dog/0.png",
    ]
    path = write_tar(tmp_path / "train.tar", {name: picture(i) for i, name in enumerate(names)})
    with pytest.warns(UserWarning, match="train.tar: .ipynb_checkpoints, @eaDir skipped, not a class"):
        source = open_local(str(path.parent), "train")
    assert source.classes == ["cat", "dog"] and source.targets.tolist() == [0, 1]
    assert [decode(source, i, "L").getpixel((0, 0)) for i in (0, 1)] == [0, 5]
    write_tar(tmp_path / "train.tar", {"._0.png": picture()})
    with pytest.raises(ValueError, match="cannot read images from .*train.tar: no image in it"):
        open_local(str(tmp_path), "train")


def test_junk_beside_tar_files(tmp_path):
    write_tar(tmp_path / "train/cat.tar", {"0.png": picture()})
    (tmp_path / "train/._cat.tar").write_bytes(b"Mac OS X")
    assert open_local(str(tmp_path), "train").classes == ["cat"]


# ---- shards ---------------------------------------------------------------------------------------------------------


def test_shards_pass_over_junk(tmp_path):
    members = {"./0.png": picture(), "./0.cls": b"1", "._0.png": b"Mac OS X", "._0.cls": b"Mac OS X", "._1.cls": b"?"}
    write_tar(tmp_path / "train-0.tar", members | {"__MACOSX/0.png": b"", "d/0.png": picture(7), "d/0.cls": b"0"})
    (tmp_path / "._train-0.tar").write_bytes(b"Mac OS X")
    (tmp_path / "classes.txt").write_bytes("\ufeffcat\ndog\n\n".encode())
    source = open_shards(str(tmp_path), "train")
    assert source.classes == ["cat", "dog"] and source.targets.tolist() == [1, 0]
    assert decode(source, 1, "L").getpixel((0, 0)) == 7


def test_a_key_ends_at_the_first_dot(tmp_path):
    members = {
        "a.b/0.rgb.png": picture(3),
        "a.b/0.depth.npy": b"",
        "a.b/0.cls": b"\xef\xbb\xbf0",
        "a.b/0.CAM.json": b"",
    }
    members |= {"1.png": picture(4), "1.seg.png": picture(5), "1.cls": b"1\n"}  # the plain name is the image
    write_tar(tmp_path / "train.tar", members)
    source = open_shards(str(tmp_path), "train")
    assert source.targets.tolist() == [0, 1] and source.name(0).endswith("train.tar:a.b/0")
    assert [decode(source, i, "L").getpixel((0, 0)) for i in (0, 1)] == [3, 4]


@pytest.mark.parametrize(
    "members, message",
    [
        ([("0.png", picture()), ("0.cls", b"0"), ("0.png", picture()), ("0.cls", b"1")], "0.png occurs twice"),
        ([("0.png", picture()), ("0.cls", b"0"), ("0.cls", b"1")], "0.cls occurs twice"),
        ([("0.png", picture()), ("0.jpg", picture()), ("0.cls", b"0")], r"0 has 2 images \(png, jpg\), expected one"),
        ([("i.1.png", b""), ("i.2.png", b""), ("i.cls", b"0")], r"i has 2 images \(1.png, 2.png\), .* the first dot"),
        ([("0.png", picture())], "0 has no label: expected 0.cls"),
        ([("0.cls", b"0")], "0 has no image: expected one such as 0.jpg"),
        ([("0.png", picture()), ("0.cls", b"cat")], "0.cls holds b'cat', expected a number"),
    ],
)
def test_samples_that_are_not_one_are_named(tmp_path, members, message):
    write_tar(tmp_path / "train.tar", members)
    with pytest.raises(ValueError, match=f"cannot read shard .*train.tar: {message}"):
        open_shards(str(tmp_path), "train")


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_lists_of_modelnet40_may_have_a_mark(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((2, 4, 3)), np.arange(2)
    (tmp_path / "train_files.txt").write_bytes("\ufeffdata/a.h5\r\n".encode())
    (tmp_path / "shape_names.txt").write_bytes("\ufeffbed\r\ncup\r\n".encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_modelnet40(tmp_path, split="train").classes == ["bed", "cup"]
