from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointmix.data.clouds.hdf5 import CloudFiles
from pointmix.data.clouds.points import finite_positions
from pointmix.data.clouds.sources import modelnet40, scanobjectnn
from pointmix.data.clouds.sources.modelnet40 import open_modelnet40
from pointmix.data.clouds.sources.scanobjectnn import open_scanobjectnn
from pointmix.io.errors import UnreadableSample


def write(path: Path, *, n: int = 6, points: int = 20, classes: int = 3, attrs: dict | None = None, **other) -> Path:
    """A file of n clouds with labels 0, 1, 2, 0, ...; others replace its arrays, None leaves one out."""
    rng = np.random.default_rng(n)
    label = np.arange(n, dtype=np.uint8) % classes
    arrays = {"data": rng.normal(size=(n, points, 3)).astype(np.float32), "label": label}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.update({key: value for key, value in {**arrays, **other}.items() if value is not None})
        file.attrs.update(attrs or {})
    return path


def data_of(path: Path, key: str = "data") -> np.ndarray:
    with h5py.File(path) as file:
        return file[key][:]


def test_clouds_of_several_files_follow_one_another(tmp_path):
    paths = [write(tmp_path / f"{n}.h5", n=n) for n in (6, 3, 4)]
    files = CloudFiles(paths)
    assert len(files) == 13 and files.classes == ["0", "1", "2"] and files.points == 20
    assert files.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0] and files.targets.dtype == np.int64
    every = np.concatenate([data_of(path) for path in paths])
    for index in (0, 5, 6, 8, 9, 12):
        points = files.read(index)
        assert np.array_equal(points.pos, every[index]) and not points.features
    assert files.name(7) == f"{paths[1]}[1]"


def test_first_points_and_features(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 20, 3), dtype=np.uint8)
    path = write(tmp_path / "a.h5", rgb=rgb, normal=np.ones((6, 20, 3)), label=np.arange(6)[:, None] % 3)
    files = CloudFiles([path], features=["rgb"], first=7)
    points = files.read(4)
    assert points.pos.shape == (7, 3) and points.features["rgb"].dtype == np.uint8 and files.points == 20
    assert np.array_equal(points.features["rgb"], rgb[4, :7])
    assert np.array_equal(CloudFiles([path], features=["normal"]).read(0).features["normal"], np.ones((20, 3)))
    points.pos[:] = 0  # what was read is the caller's own
    assert np.abs(files.read(4).pos).max() > 0


def test_mask_says_what_is_background(tmp_path):
    mask = np.array([[-1] * 5 + [0] * 15] * 6, dtype=np.int32)
    files = CloudFiles([write(tmp_path / "a.h5", mask=mask)], first=8)
    assert files.on_object(3).tolist() == [False] * 5 + [True] * 3
    assert CloudFiles([write(tmp_path / "b.h5")]).on_object(0) is None


def test_a_process_that_forks_opens_the_file_anew(tmp_path):
    files = CloudFiles([write(tmp_path / "a.h5")])
    expected = files.read(2).pos
    handle = files._open
    end, begin = os.pipe()
    child = os.fork()
    if not child:
        ok = np.array_equal(files.read(2).pos, expected) and files._open[0] == os.getpid() != handle[0]
        os.write(begin, b"y" if ok else b"n")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(end, 1) == b"y"
    assert files._open is handle and np.array_equal(files.read(2).pos, expected)


def test_open_files_are_left_out_of_a_pickle(tmp_path):
    files = CloudFiles([write(tmp_path / "a.h5")])
    expected = files.read(1).pos
    assert np.array_equal(pickle.loads(pickle.dumps(files)).read(1).pos, expected)


def test_names_come_from_the_caller_the_file_or_the_labels(tmp_path):
    for attrs in ({"classes": "box,cup,cone"}, {"classes": np.bytes_(b"box,cup,cone")}):
        path = write(tmp_path / "a.h5", attrs=attrs)
        assert CloudFiles([path]).classes == ["box", "cup", "cone"]
    assert CloudFiles([path], classes=("a", "b", "c", "d")).classes == ["a", "b", "c", "d"]
    mixed = write(tmp_path / "b.h5", attrs={"classes": "x,y,z"})
    assert CloudFiles([path, mixed]).classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": None}, "has no key 'data'; it has label"),
        ({"label": None}, "has no key 'label'; it has data"),
        ({"data": np.zeros((6, 20, 2))}, r"data must be \(n, N, 3\) floating point, got \(6, 20, 2\)"),
        ({"data": np.zeros((6, 20, 3), np.int32)}, "data must be .* got .* int32"),
        ({"data": np.zeros((0, 20, 3)), "label": np.zeros(0, int)}, "data must be .* got .0, 20, 3."),
        ({"label": np.zeros(5, int)}, r"label must be \(6,\) integers, got \(5,\)"),
        ({"label": np.zeros(6)}, "label must be .* got .* float64"),
        ({"label": np.array([0, 1, 3, 0, 1, 3])}, r"labels \[0, 1, 3\] are not 0 to 3 without a gap; give the classes"),
        ({"label": np.array([0, 1, -1, 0, 1, 2])}, r"labels \[-1, 0, 1, 2\] are not"),
        ({"mask": np.zeros((6, 9))}, r"mask must be \(6, 20\), got \(6, 9\)"),
        ({"rgb": np.zeros((6, 19, 3), np.uint8)}, r"rgb must be \(6, 20\) or \(6, 20, C\) numbers"),
    ],
)
def test_files_that_do_not_fit_are_named_with_the_key(tmp_path, change, message):
    path = write(tmp_path / "bad.h5", **change)
    with pytest.raises(ValueError, match=message) as caught:
        CloudFiles([path], features=["rgb"] if "rgb" in change else [])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_labels_out_of_range(tmp_path):
    path = write(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="a.h5: label 2 is out of range, expected 0 to 1"):
        CloudFiles([path], classes=("box", "cup"))
    with pytest.raises(ValueError, match="has no key 'rgb'; it has data, label"):
        CloudFiles([path], features=["rgb"])


def test_files_cut_off_or_not_there(tmp_path):
    path = write(tmp_path / "a.h5", n=200)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="a.h5 is not a complete HDF5 file: .*truncated"):
        CloudFiles([path])
    path.write_text("data")
    with pytest.raises(ValueError, match="a.h5 is not a complete HDF5 file"):
        CloudFiles([path])
    with pytest.raises(FileNotFoundError, match="no file .*b.h5"):
        CloudFiles([tmp_path / "b.h5"])


def test_a_damaged_cloud_is_named_when_it_is_read(tmp_path):
    data = np.zeros((6, 20, 3), np.float32)
    data[4, 3, 1], data[4, 9] = np.nan, np.inf
    files = CloudFiles([write(tmp_path / "a.h5", data=data)])
    assert not finite_positions(files.read(3)).any()
    with pytest.raises(UnreadableSample, match="the positions are NaN or infinite at 2 of 20 points"):
        finite_positions(files.read(4))
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(6, int)
        values = np.random.default_rng(0).normal(size=(6, 20, 3))
        file.create_dataset("data", data=values, chunks=(1, 20, 3), fletcher32=True)
        place = file["data"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 50] ^= 255
    path.write_bytes(content)
    files = CloudFiles([path])
    assert np.allclose(files.read(1).pos, values[1])
    with pytest.raises(UnreadableSample) as caught:
        files.read(2)
    assert "\n" not in str(caught.value)


# ---- layouts --------------------------------------------------------------------------------------------------------


def test_scanobjectnn_finds_its_three_forms(tmp_path):
    labels = np.arange(30) % 15
    places = {
        "obj_only": "main_split_nobg/{}_objectdataset.h5",
        "obj_bg": "main_split/{}_objectdataset.h5",
        "pb_t50_rs": "main_split/{}_objectdataset_augmentedrot_scale75.h5",
    }
    for root in (tmp_path / "a", tmp_path / "b/h5_files"):
        for place in places.values():
            for split in ("training", "test"):
                write(root / place.format(split), n=30, label=labels)
    for root in (tmp_path / "a", tmp_path / "b"):
        for variant, place in places.items():
            for split, name in (("train", "training"), ("test", "test")):
                files = open_scanobjectnn(root, split=split, variant=variant)
                assert files.paths[0].endswith(place.format(name)) and files.classes == list(scanobjectnn.CLASSES)


def test_scanobjectnn_says_which_form_is_there(tmp_path):
    write(tmp_path / "main_split_nobg/training_objectdataset.h5")
    assert open_scanobjectnn(tmp_path, split="train", variant="obj_only").classes == ["0", "1", "2"]
    with pytest.raises(FileNotFoundError, match="scale75.h5; data.variant obj_only is there"):
        open_scanobjectnn(tmp_path, split="train", variant="pb_t50_rs")
    with pytest.raises(FileNotFoundError, match="no file .*nowhere/main_split_nobg/test_objectdataset.h5$"):
        open_scanobjectnn(tmp_path / "nowhere", split="test", variant="obj_only")


def test_modelnet40_by_lists_or_by_name(tmp_path):
    root = tmp_path / "modelnet40_ply_hdf5_2048"
    for i in (0, 1):
        write(root / f"ply_data_train{i}.h5", n=40 + i, classes=40, label=np.arange(40 + i)[:, None] % 40)
    for given in (tmp_path, root):
        files = open_modelnet40(given, split="train")
        assert len(files) == 81 and files.classes == list(modelnet40.CLASSES)
    (root / "train_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_train1.h5\n\n")
    assert len(open_modelnet40(root, split="train")) == 41
    (root / "train_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_train9.h5")
    with pytest.raises(FileNotFoundError, match="no file .*/modelnet40_ply_hdf5_2048/ply_data_train9.h5"):
        open_modelnet40(root, split="train")
    with pytest.raises(FileNotFoundError, match="no .*ply_data_test.*.h5, nor any file named in .*test_files.txt"):
        open_modelnet40(root, split="test")


def test_modelnet40_names_and_labels(tmp_path):
    write(tmp_path / "ply_data_test0.h5")
    (tmp_path / "shape_names.txt").write_text("arm chair\nbed\ncup\n")
    assert open_modelnet40(tmp_path, split="test").classes == ["arm chair", "bed", "cup"]
    assert open_modelnet40(tmp_path, split="test", classes=("a", "b", "c")).classes == ["a", "b", "c"]
    (tmp_path / "shape_names.txt").write_text("bed\ncup\n")
    with pytest.raises(ValueError, match="label 2 is out of range, expected 0 to 1"):
        open_modelnet40(tmp_path, split="test")


def test_names_are_as_many_as_the_sets_have():
    assert len(set(scanobjectnn.CLASSES)) == 15 and len(set(modelnet40.CLASSES)) == 40
    assert list(modelnet40.CLASSES) == sorted(modelnet40.CLASSES)


# ---- real files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Path:
    if "POINTMIX_DATA" not in os.environ:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    return Path(os.environ["POINTMIX_DATA"])


@pytest.mark.parametrize("variant", ["obj_only", "obj_bg"])
def test_real_scans(real, variant):
    features = ["rgb"] if variant == "obj_only" else []
    train, test = (
        open_scanobjectnn(real / "mosd_objects", split=split, variant=variant, features=features)
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (96, 99) and train.classes == test.classes == ["box", "cylinder"]
    points = test.read(98)
    assert points.pos.shape == (2048, 3) and set(points.features) == set(features)
    assert all(value.shape == (2048, 3) for value in points.features.values())
    mask = test.on_object(98)
    assert mask is None if variant == "obj_only" else 0.1 < mask.mean() < 1


def test_real_files_of_modelnet40s_layout(real, tmp_path):
    for name, source in (("ply_data_train0.h5", "ycb_objects_train.h5"), ("ply_data_test0.h5", "test_model.h5")):
        (tmp_path / name).symlink_to(real / "ycb_h5" / source)
    train, test = (open_modelnet40(tmp_path, split=s, classes=tuple("abcdef")) for s in ("train", "test"))
    assert (len(train), len(test), train.points) == (60, 6, 2048)
    assert CloudFiles(test.paths).classes == [str(i) for i in range(6)]
    assert np.abs(train.read(59).pos).max() > 0
