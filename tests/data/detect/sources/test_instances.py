from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.splits import build_detect
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.detect.files import SIZE, opened, write_image, write_mask


def numbered(dtype=np.uint16):
    values = np.zeros(SIZE, dtype)
    values[2:5, 3:9], values[10:20, 20:30] = 7, 200
    return values


def write(root, stems=tuple("abcdefghij"), folder=""):
    for stem in stems:
        write_image(root / "images" / folder / f"{stem}.png")
        write_mask(root / "masks" / folder / f"{stem}.png", numbered())
    return root


def files_of(root):
    """Source and index of each image by its name, in train or test."""
    files = {}
    for split in ("train", "test"):
        source = opened("instances", root, split, test_fraction=0.4)
        files |= {pair[0].stem: (source, i) for i, pair in enumerate(source.pairs)}
    return files


def test_every_number_is_an_object_of_the_one_class(tmp_path):
    source = opened("instances", write(tmp_path))
    assert source.classes == ("object",) and source.category_ids == (1,) and source.has_masks
    read = source.read(0)
    assert read.objects.boxes.tolist() == [[3, 2, 9, 5], [20, 10, 30, 20]] and read.objects.labels.tolist() == [0, 0]
    assert (rle.decode(read.objects.masks, SIZE).sum(0) == (numbered() > 0)).all()
    assert read.objects.area.tolist() == [18, 100] and source.size(0) == SIZE
    assert opened("instances", tmp_path, classes=("cell",)).classes == ("cell",)


def test_the_part_held_back_follows_from_the_hashes_of_the_names(tmp_path):
    write(tmp_path / "one"), write(tmp_path / "two", "jihgfedcba")
    test = {opened("instances", tmp_path / name, "test").pairs[i][0].stem for name in ("one", "two") for i in range(2)}
    assert test == set(sorted("abcdefghij", key=lambda stem: hashlib.sha256(stem.encode()).hexdigest())[:2])
    train = {pair[0].stem for pair in opened("instances", tmp_path / "one").pairs}
    assert train == set("abcdefghij") - test and opened("instances", tmp_path / "one", "val") is None
    assert len(opened("instances", tmp_path / "one", "test", test_fraction=0.5)) == 5
    with pytest.raises(ValueError, match="has no image for test"):
        opened("instances", tmp_path / "one", "test", test_fraction=0.0)


def test_folders_of_splits(tmp_path):
    write(tmp_path, "ab", "train"), write(tmp_path, "c", "test")
    assert [len(opened("instances", tmp_path, split)) for split in ("train", "test")] == [2, 1]
    assert opened("instances", tmp_path, "val") is None
    write(tmp_path, "def", "val")
    assert opened("instances", tmp_path, "val").read(1).image_id == "val/e"
    with pytest.raises(ValueError, match="data.test_fraction is set, but .* has the folders train and test"):
        opened("instances", tmp_path, test_fraction=0.1)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros((20, 31), np.uint8), r"a.png is 20x31, the image is 20x30 \(rows x columns\)"),
        (np.zeros((*SIZE, 3), np.uint8), r"a.png is RGB, expected one channel of labels that number the objects"),
    ],
)
def test_masks_that_do_not_fit_stop_the_run(tmp_path, values, message):
    write(tmp_path, "abc")
    write_mask(tmp_path / "masks/a.png", values)
    source, index = files_of(tmp_path)["a"]
    with pytest.raises(BadMask, match=message):
        source.read(index)


def test_negative_numbers_and_damaged_files(tmp_path):
    write(tmp_path, "abc")
    (tmp_path / "masks/a.png").unlink()
    write_mask(tmp_path / "masks/a.tif", np.full(SIZE, -3, np.int32))
    (tmp_path / "masks/b.png").write_bytes(b"no image")
    (tmp_path / "images/c.png").write_bytes(b"no image")
    files = files_of(tmp_path)
    for stem, error, message in (
        ("a", BadMask, "a.tif holds -3, expected numbers of objects from 1, 0 for none"),
        ("b", UnreadableSample, "mask .*b.png is not an image"),
        ("c", UnreadableSample, "not an image"),
    ):
        source, index = files[stem]
        with pytest.raises(error, match=message):
            source.read(index)


def test_files_without_a_partner_and_settings_of_others(tmp_path):
    with pytest.raises(FileNotFoundError, match="no images, masks"):
        opened("instances", tmp_path)
    write(tmp_path)
    write_image(tmp_path / "images/z.png")
    with pytest.raises(ValueError, match="1 image files have no mask: .*z.png"):
        opened("instances", tmp_path)
    with pytest.raises(ValueError, match="data.classes a, b: objects of source instances are of one class"):
        opened("instances", tmp_path, classes=("a", "b"))
    with pytest.raises(ValueError, match="data.train_json is set, but data.source is instances"):
        opened("instances", tmp_path, train_json="x.json")


def test_an_image_without_an_object_is_trained_on(tmp_path):
    write(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        write_mask(path, np.zeros(SIZE, np.uint16))
    cfg = DetectDataConfig(source="instances", root=str(tmp_path), short_side=20)
    (target, _) = next(iter(build_detect(cfg, batch_size=2, seed=0).train)).targets
    assert target.boxes.shape == (0, 4) and target.masks.shape == (0, 20, 30) and target.labels.shape == (0,)


def test_real_data():
    folder = Path(os.environ.get("POINTMIX_DATA", "")) / "nuclei"
    if not folder.is_dir():
        pytest.skip("POINTMIX_DATA does not name a folder with nuclei")
    cfg = DetectDataConfig(source="instances", root=str(folder), classes=("nucleus",), short_side=256)
    data = build_detect(cfg, batch_size=4, seed=0)
    assert [len(data.train.samples), len(data.val.samples), len(data.test.samples)] == [108, 12, 30]
    batch = next(iter(data.train))
    assert batch.targets[0].masks.shape[1:] == tuple(batch.sizes[0].tolist())
    names = {data.test.samples.source.name(i) for i in range(30)}
    assert not names & {data.train.samples.source.name(i) for i in range(120)}
