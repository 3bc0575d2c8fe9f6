from __future__ import annotations

import shutil

import numpy as np
import pytest

from pointmix.data.images.config import DataConfig
from pointmix.data.images.splits import build_data, build_test, open_split
from pointmix.data.label_csv import find_csv, read_labels

SETTINGS = {"source": "folder", "img_size": 16, "val_fraction": 0.0}


def write(folder, text, name="labels.csv", **kwargs):
    (folder / name).write_bytes(text.encode(**kwargs))
    return folder / name


@pytest.fixture
def files(tmp_path):
    """a.jpg, b.jpg and so on, empty."""
    for name in "abcdef":
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


@pytest.fixture
def flat(folder):
    """The images of a class folder in one folder with a CSV file: 20 + 10 to train, 4 + 3 for test."""
    lines = []
    for split, name in (("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "dog")):
        for path in sorted((folder / split / name).iterdir()):
            file = f"{split}_{name}_{path.name}"
            (folder / "all").mkdir(exist_ok=True)
            shutil.move(path, folder / "all" / file)
            lines.append(f"all/{file},{name},{'test' if split == 'val' else split}")
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "val")
    write(folder, "\n".join(["file,label,split", *lines]))
    return folder


def lines_of(flat) -> list[str]:
    return (flat / "labels.csv").read_text().splitlines()


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["file,label", "Path,Class", "image,target", "filename,label", "x,label,file"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_columns_are_found_by_name(files, header, separator, encoding):
    cells = {"file": "a.jpg", "path": "a.jpg", "image": "a.jpg", "filename": "a.jpg", "x": "9"}
    row = [cells.get(name.lower(), "Käse") for name in header.split(",")]
    text = "\r\n".join([header, ",".join(row), "", ""]).replace(",", separator)
    table = read_labels(write(files, text, encoding=encoding))
    assert table.files == [files / "a.jpg"] and table.classes == ["Käse"] and table.splits is None


def test_classes_are_sorted_by_name_or_as_numbers(files):
    table = read_labels(write(files, "file,label\na.jpg,10\nb.jpg,9\nc.jpg,10"))
    assert table.classes == ["9", "10"] and table.targets.tolist() == [1, 0, 1]
    table = read_labels(write(files, 'file,label\na.jpg,10\nb.jpg,9\nc.jpg,"dog, big"'))
    assert table.classes == ["10", "9", "dog, big"]


def test_columns_can_be_named(files):
    text = "file,label,species,photo\na.jpg,1,cat,b.jpg"
    table = read_labels(write(files, text), file_key="photo", label_key="Species")
    assert table.classes == ["cat"] and table.files == [files / "b.jpg"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "labels.csv has no column file or path or image or filename .*; its header has nothing"),
        ("name,label\na.jpg,cat", "labels.csv has no column file or path .*; its header has name, label"),
        ("file,kind\na.jpg,cat", "labels.csv has no column label or class or target; its header has file, kind"),
        ("file,label\n", "labels.csv has no line below its header"),
        ("file,label\na.jpg,cat\nb.jpg,", "labels.csv, line 3 has an empty label"),
        ("file,label\n ,cat", "labels.csv, line 2 has an empty file"),
        (
            "file,label\na.jpg,cat\na.jpg,dog",
            "line 3 names a.jpg with label dog, and in line 2 with cat; expected",
        ),
        ("file,label\na.jpg,cat\n./a.jpg,cat", "line 3 names ./a.jpg again; expected each file once"),
        ("file,label,split\na.jpg,cat,train\nb.jpg,cat,trian", "line 3: split 'trian', expected train, val or test"),
        ("file,label,split\na.jpg,cat,", "line 2: split '', expected train, val or test"),
        ("file,label\na.jpg,cat,dog", "line 2 has 3 cells, its header 2"),
        ('file,label\na.jpg,"cat', "labels.csv, line 2: unexpected end of data"),
    ],
)
def test_bad_lines_are_named(files, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_labels(write(files, text))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there(files):
    path = write(files, "file,label\na.jpg,cat")
    with pytest.raises(ValueError, match="labels.csv has no column species; its header has file, label"):
        read_labels(path, label_key="species")


def test_missing_files_are_named(files):
    path = write(files, "file,label\na.jpg,cat\nx.jpg,cat\ny.jpg,cat")
    with pytest.raises(FileNotFoundError, match=r"line 3: no file .*x.jpg \(and 1 more are missing\)"):
        read_labels(path)
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.csv"):
        read_labels(files / "nowhere.csv")


def test_bytes_that_are_no_text(files):
    (files / "labels.csv").write_bytes("file,label\na.jpg,Käse".encode("latin-1"))
    with pytest.raises(ValueError, match="labels.csv is not text in UTF-8"):
        read_labels(files / "labels.csv")


def test_classes_that_differ_in_case_are_told(files):
    with pytest.warns(UserWarning, match="labels.csv: classes Cat and cat differ only in case"):
        read_labels(write(files, "file,label\na.jpg,cat\nb.jpg,Cat"))


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_splits_by_their_column(files):
    text = "file,label,split\na.jpg,x,Train\nb.jpg,y,training\nc.jpg,x,validation\nd.jpg,x,val"
    table = read_labels(write(files, text))
    assert table.part("train", seed=0).tolist() == [0, 1]
    assert table.part(None, seed=0).tolist() == table.part("validation", seed=0).tolist() == [2, 3]
    with pytest.raises(ValueError, match="labels.csv has no files of split test; it has train, val"):
        table.part("test", seed=0)
    table = read_labels(write(files, text + "\ne.jpg,y,test"))
    assert table.part(None, seed=0).tolist() == [4] and table.part("val", seed=0).tolist() == [2, 3]


def test_without_a_column_a_fifth_of_each_class_is_for_test(flat):
    write(flat, "\n".join(line.rpartition(",")[0] for line in lines_of(flat)))
    with pytest.warns(UserWarning, match="labels.csv has no column split: 20% of each class are the test split"):
        train, test = (open_split(DataConfig(root=str(flat), **SETTINGS), split) for split in ("train", None))
    assert np.bincount(train.targets).tolist() == [19, 10] and np.bincount(test.targets).tolist() == [5, 3]
    names = [source.name(i) for source in (train, test) for i in range(len(source.targets))]
    assert len(set(names)) == 37


def test_a_class_that_is_only_in_test(files):
    table = read_labels(write(files, "file,label,split\na.jpg,cat,train\nb.jpg,dog,test"))
    with pytest.raises(ValueError, match="labels.csv: split train has no file of class dog"):
        table.part("train", seed=0)


# ---- a folder of images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["labels.csv", "data.csv"])
def test_the_root_alone_is_enough(flat, name):
    (flat / "labels.csv").rename(flat / name)
    assert find_csv(flat) == flat / name
    cfg = DataConfig(root=str(flat), **SETTINGS)
    splits = build_data(cfg, batch_size=8, eval_batch_size=8, seed=0)
    assert splits.classes == ["cat", "dog"] and len(splits.train.samples) == 30 and len(splits.test.samples) == 7
    test, classes = build_test(cfg, batch_size=7)
    assert classes == splits.classes and next(iter(test))[1].tolist() == [0] * 4 + [1] * 3


def test_class_folders_come_first_unless_the_file_is_named(folder):
    write(folder, "file,label,split\ntrain/cat/00.jpg,x,train\nval/cat/00.jpg,x,test", name="data.csv")
    assert open_split(DataConfig(root=str(folder), **SETTINGS), "train").classes == ["cat", "dog"]
    named = DataConfig(root=str(folder), labels="data.csv", **SETTINGS)
    assert open_split(named, "train").classes == ["x"]
    with pytest.raises(FileNotFoundError, match="no file .*/nowhere.csv"):
        open_split(DataConfig(root=str(folder), labels="nowhere.csv", **SETTINGS), "train")
    with pytest.raises(ValueError, match="data.labels is set, but data.source is digits, which does not use it"):
        build_data(DataConfig(labels="data.csv"), batch_size=8, eval_batch_size=8, seed=0)


def test_val_of_the_file_selects_unless_a_fraction_is_given(flat):
    lines = [line.replace(",train", ",val") if "train_cat_0" in line else line for line in lines_of(flat)]
    write(flat, "\n".join(lines))
    settings = {key: value for key, value in SETTINGS.items() if key != "val_fraction"}

    def sizes(**more):
        splits = build_data(DataConfig(root=str(flat), **settings, **more), batch_size=4, eval_batch_size=8, seed=0)
        return tuple(0 if part is None else len(part.samples) for part in (splits.train, splits.val, splits.test))

    assert sizes() == (20, 10, 7) and sizes(val_fraction=0.0) == (20, 0, 7) and sizes(val_fraction=0.2) == (16, 4, 7)


def test_columns_of_the_settings(flat):
    write(flat, "\n".join(["picture,label,split,species", *(f"{line},x" for line in lines_of(flat)[1:])]))
    cfg = DataConfig(root=str(flat), input_key="picture", target_key="species", **SETTINGS)
    assert open_split(cfg, "train").classes == ["x"]
