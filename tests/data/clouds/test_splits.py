from __future__ import annotations

import dataclasses
import inspect
import os
import random
import re
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.resolve import resolve
from pointmix.data.clouds.sources import shapes
from pointmix.data.clouds.splits import PointSplits, build_points, build_points_test
from pointmix.data.clouds.transforms import train_transform
from pointmix.io.errors import UnreadableSample
from pointmix.pointset import PointSet

CALL = {"batch_size": 4, "eval_batch_size": 4, "seed": 0}
PLAIN = {"scale": (1.0, 1.0), "translate": 0.0, "shuffle": False}
EVERYTHING = {"rotate": 180.0, "rotate_axis": "any", "jitter": 0.01, "dropout_ratio": 0.5}


def write(path: Path, n: int, *, seed: int, points: int = 32, classes: int = 3, **other) -> Path:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = {"data": rng.normal(size=(n, points, 3)).astype(np.float32), "label": np.arange(n) % classes}
        file.update({**data, **other})
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 training and 10 test clouds of 32 points, 3 classes, as OBJ_BG."""
    write(tmp_path / "main_split/training_objectdataset.h5", 30, seed=0)
    write(tmp_path / "main_split/test_objectdataset.h5", 10, seed=1)
    return tmp_path


def config(root: Path, **kwargs) -> PointDataConfig:
    settings = {"variant": "obj_bg", "points": 16, "val_fraction": 0.0, **kwargs}
    return PointDataConfig(source="scanobjectnn", root=str(root), **settings)


def build(root: Path, **kwargs) -> PointSplits:
    call = CALL | {key: kwargs.pop(key) for key in list(kwargs) if key in (*CALL, "rank", "world_size")}
    return build_points(config(root, **kwargs), **call)


def epoch_of(splits: PointSplits, epoch: int) -> list[tuple[PointSet, torch.Tensor]]:
    splits.set_epoch(epoch)
    return list(splits.train)


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for (p, s), (q, t) in zip(a, b, strict=True)
        for x, y in ((p.pos, q.pos), (p.feat, q.feat), (p.ptr, q.ptr), (s, t))
    )


def data_of(root: Path, split: str) -> np.ndarray:
    with h5py.File(root / f"main_split/{split}_objectdataset.h5") as file:
        return file["data"][:]


# ---- what comes out -------------------------------------------------------------------------------------------------


def test_shapes_are_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "COUNTS", {"training": 120, "test": 24})
    monkeypatch.setattr(shapes, "POINTS", 64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    splits = build_points(PointDataConfig(points=64), batch_size=8, eval_batch_size=16, seed=0)
    points, targets = next(iter(splits.train))
    assert points.pos.shape == (8 * 64, 3) and points.feat.shape == (8 * 64, 0) and points.pos.dtype == torch.float32
    assert points.ptr.tolist() == list(range(0, 8 * 64 + 1, 64))
    assert targets.shape == (8,) and targets.dtype == torch.int64
    sizes = [sum(len(t) for _, t in loader) for loader in (splits.val, splits.test)]
    assert sizes == [12, 24] and len(splits.train.dataset) == 108 and splits.steps_per_epoch == 13
    assert splits.classes == list(shapes.OBJECTS) and splits.skipped() == []
    assert splits.model_kwargs == {"num_classes": 12, "in_chans": 0, "coord_dims": 3}


def test_test_clouds_are_the_first_points_as_they_are(root):
    splits = build(root)
    expected = torch.from_numpy(data_of(root, "test")[:, :16]).flatten(0, 1)
    assert torch.equal(torch.cat([points.pos for points, _ in splits.test]), expected)
    assert torch.cat([targets for _, targets in splits.test]).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert splits.val is None and splits.classes == ["0", "1", "2"]


def test_training_drops_the_rest_and_evaluation_keeps_it(root):
    splits = build(root)
    assert splits.steps_per_epoch == 7 and [len(t) for _, t in splits.train] == [4] * 7
    assert [len(t) for _, t in splits.test] == [4, 4, 2]


def test_the_authors_augmentation_is_the_default(root):
    """Factors of 2/3 to 3/2 and shifts of up to 0.2 along each axis, then another order."""
    splits = build(root)
    clouds = {i: c for i, c in enumerate(data_of(root, "training")[:, :16])}
    factors, shifts = [], []
    dataset = splits.train.dataset
    for i in range(30):
        moved = dataset[(0, i)][0][0].pos.numpy()
        assert not np.array_equal(np.argsort(moved[:, 0]), np.argsort(clouds[i][:, 0]))
        for axis in range(3):
            x, y = np.sort(clouds[i][:, axis]), np.sort(moved[:, axis])
            factor, shift = np.polyfit(x, y, 1)
            assert np.allclose(factor * x + shift, y, atol=1e-4)
            factors.append(factor), shifts.append(shift)
    assert 2 / 3 - 1e-4 < min(factors) < 0.75 and 1.35 < max(factors) < 1.5 + 1e-4
    assert -0.2 - 1e-4 < min(shifts) < -0.15 and 0.15 < max(shifts) < 0.2 + 1e-4


def test_normalization_comes_before_the_augmentation(root):
    sphere = build(root, normalize="unit_sphere", **PLAIN)
    for points, _ in (*sphere.train, *sphere.test):
        for cloud in points.unbind():
            assert abs(cloud.pos.norm(dim=1).max() - 1) < 1e-5 and cloud.pos.mean(0).abs().max() < 1e-5
    cube = build(root, normalize="unit_cube", **PLAIN | {"scale": (2.0, 2.0)})
    assert abs(next(iter(cube.test))[0].pos.abs().max() - 0.5) < 1e-5
    assert abs(next(iter(cube.train))[0].pos.abs().max() - 1) < 1e-5


def test_dropped_points_make_ragged_batches(root):
    sizes = torch.cat([points.ptr.diff() for points, _ in build(root, dropout_ratio=0.5).train])
    assert 8 <= sizes.min() < 11 and 13 < sizes.max() <= 16
    assert all((points.ptr.diff() == 16).all() for points, _ in build(root, dropout_ratio=0.5).test)


def test_which_points(root):
    whole = torch.from_numpy(data_of(root, "test"))
    spread, drawn = (build(root, sampling=s, **PLAIN) for s in ("fps", "random"))
    assert (next(iter(drawn.test))[0].ptr.diff() == 32).all()  # whole, for `Voting` takes parts
    sample, _ = build_points_test(config(root, sampling="random"), batch_size=4)
    for loader in (spread.test, sample):
        for b, cloud in enumerate(next(iter(loader))[0].unbind()):
            rows = (cloud.pos[:, None] == whole[b]).all(2).nonzero()[:, 1]
            assert len(rows.unique()) == 16 and rows.tolist() != list(range(16))
    assert same(list(drawn.test), list(drawn.test)) and not same(epoch_of(drawn, 0), epoch_of(drawn, 1))
    cloud = whole[0]
    picked = next(iter(spread.test))[0].unbind()[0].pos
    gaps = [torch.cdist(p, cloud).amin(0).max() for p in (picked, cloud[:16])]
    assert torch.equal(picked[0], cloud[0]) and gaps[0] < gaps[1]


def test_features_are_read_and_normals_turn_along(root):
    normal = data_of(root, "training")
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    rgb = np.random.default_rng(0).integers(0, 256, (30, 32, 3), dtype=np.uint8)
    write(root / "main_split/training_objectdataset.h5", 30, seed=0, normal=normal, rgb=rgb)
    write(root / "main_split/test_objectdataset.h5", 10, seed=1, normal=normal[:10], rgb=rgb[:10])
    splits = build(root, features=("normal",), rotate=180.0, rotate_axis="any", **PLAIN)
    points, _ = next(iter(splits.train))
    assert splits.model_kwargs["in_chans"] == 3
    assert torch.allclose(points.feat, points.pos / points.pos.norm(dim=1, keepdim=True), atol=1e-5)
    still = build(root, features=("normal",), **PLAIN)
    assert not torch.allclose(next(iter(still.train))[0].feat, points.feat, atol=0.1)
    colors = next(iter(build(root, features=("rgb",), **EVERYTHING).test))[0].feat
    assert torch.allclose(colors[:16], torch.from_numpy(rgb[0, :16] / np.float32(255)))


# ---- loaders --------------------------------------------------------------------------------------------------------


def test_batches_do_not_depend_on_workers_or_cache_or_what_ran_before(root):
    here, caching, there = (build(root, **EVERYTHING, **other) for other in ({}, {"cache": True}, {"workers": 2}))
    first, second = epoch_of(here, 0), epoch_of(here, 1)
    assert not same(first, second)
    assert same(first, epoch_of(here, 0)) and same(second, epoch_of(caching, 1))
    assert same(first, epoch_of(there, 0)) and same(second, epoch_of(there, 1))  # the same, persistent workers
    assert not same(first, epoch_of(build(root, **EVERYTHING, seed=1), 0))
    assert same(list(here.test), list(there.test)) and same(list(here.test), list(caching.test))


def test_each_cloud_has_random_numbers_of_its_own(root):
    data = np.repeat(data_of(root, "training")[:1], 30, axis=0)
    write(root / "main_split/training_objectdataset.h5", 30, seed=0, data=data)
    dataset = build(root).train.dataset
    assert len(torch.stack([dataset[(0, i)][0][0].pos for i in range(30)]).flatten(1).unique(dim=0)) == 30


def test_two_processes_see_the_batches_of_one(root):
    one = epoch_of(build(root, **EVERYTHING), 3)
    parts = [epoch_of(build(root, **EVERYTHING, batch_size=2, rank=r, world_size=2), 3) for r in range(2)]
    joined = [(PointSet.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(*parts, strict=True)]
    assert same(one, joined)
    tests = [torch.cat([p.pos for p, _ in build(root, rank=r, world_size=2).test]).view(-1, 16, 3) for r in range(2)]
    whole = torch.from_numpy(data_of(root, "test")[:, :16])
    assert torch.equal(tests[0], whole[0::2]) and torch.equal(tests[1], whole[1::2])


@pytest.mark.parametrize("workers", [0, 1])
def test_random_states_of_the_caller_are_left_alone(root, workers):
    splits = build(root, workers=workers, sampling="random", **EVERYTHING)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    list(splits.train), list(splits.test)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize("before, after", [(0, 0), (2, 0), (0, 2)])
def test_it_goes_on_in_mid_epoch_with_any_number_of_workers(root, before, after):
    first, second = (build(root, **EVERYTHING, workers=w) for w in (before, after))
    first.set_epoch(2)
    begun = list(islice(first.train, 3))
    state = first.train.state_dict()
    second.set_epoch(state["epoch"])
    second.train.load_state_dict(state)
    whole = build(root, **EVERYTHING)
    assert same(begun + list(second.train), epoch_of(whole, 2))
    assert same(epoch_of(second, 3), epoch_of(whole, 3))


def damage(root: Path, split: str, *rows: int) -> None:
    with h5py.File(root / f"main_split/{split}_objectdataset.h5", "r+") as file:
        for row in rows:
            file["data"][row, 3] = np.nan


@pytest.mark.parametrize("workers, cache", [(0, False), (2, False), (0, True)])
def test_damaged_clouds_are_left_out_and_named(root, workers, cache):
    damage(root, "test", 1), damage(root, "training", 5, 6)
    splits = build(root, workers=workers, cache=cache)
    assert torch.cat([targets for _, targets in splits.test]).tolist() == [0, 2, 0, 1, 2, 0, 1, 2, 0]
    assert [len(targets) for _, targets in epoch_of(splits, 0)] == [4] * 7
    assert splits.train.dataset[(0, 5)][0][1] == 7 % 3  # the next readable one
    skipped = dict(splits.skipped())
    name = f"{root}/main_split/test_objectdataset.h5[1]"
    assert skipped[name] == "the positions are NaN or infinite at 1 of 16 points; nan drop leaves them out"
    with pytest.raises(UnreadableSample, match=r"h5\[1\]: the positions are NaN .*data.strict refuses damaged clouds"):
        list(build(root, strict=True).test)


def test_nothing_readable_is_an_error_not_a_hang(root):
    damage(root, "training", *range(30))
    with pytest.raises(UnreadableSample, match="all of 30 clouds in a row are damaged"):
        list(build(root).train)
    assert len(list(build(root).test)) == 3


def test_a_batch_of_which_nothing_can_be_read(root):
    damage(root, "test", 0, 1, 2, 3)
    assert [len(targets) for _, targets in build(root).test] == [4, 2]


# ---- parts and settings ---------------------------------------------------------------------------------------------


def test_held_back_clouds_and_limit(root):
    splits = build(root, val_fraction=0.2, limit=8)
    assert sum(len(t) for _, t in splits.val) == 6 and len(splits.train.dataset) == 8
    assert not set(splits.val.dataset.indices) & set(splits.train.dataset.indices)
    held = [build(root, val_fraction=0.2, seed=seed).val.dataset.indices for seed in (0, 1)]
    assert np.array_equal(*held)


def test_folds_divide_train_into_equal_parts(root):
    (root / "main_split/test_objectdataset.h5").unlink()
    parts = [build(root, fold=(k, 5)) for k in range(1, 6)]
    held = [splits.test.dataset.indices for splits in parts]
    assert sorted(np.concatenate(held)) == list(range(30)) and {len(part) for part in held} == {6}
    for splits, part in zip(parts, held, strict=True):
        assert np.bincount(splits.train.dataset.source.targets[part]).tolist() == [2, 2, 2]
        assert sorted([*splits.train.dataset.indices, *part]) == list(range(30))
        alone, _ = build_points_test(splits.config, batch_size=4)
        assert same(list(alone), list(splits.test))
    assert len(build(root, fold=(1, 5), val_fraction=0.25).val.dataset) == 6
    with pytest.raises(ValueError, match="data.fold 1, 31: 30 samples cannot be divided into 31 parts"):
        build(root, fold=(1, 31))


def test_the_up_axis_is_the_axis_of_rotation(root):
    for up, axis in (("x", 0), ("z", 2), (None, 1)):  # y for ScanObjectNN
        still, turned = (build(root, rotate=angle, up=up, **PLAIN).train.dataset[0, 0][0][0].pos for angle in (0, 180))
        others = [i for i in range(3) if i != axis]
        torch.testing.assert_close(still[:, axis], turned[:, axis])
        assert not torch.allclose(still[:, others], turned[:, others])


def test_all_points_and_at_most_so_many(root):
    whole = build(root, points=None, sampling="random", normalize="center", **PLAIN)
    assert all((points.ptr.diff() == 32).all() for loader in (whole.train, whole.test) for points, _ in loader)
    some = build(root, points=None, max_points=20, sampling="random")
    assert all((points.ptr.diff() == 20).all() for points, _ in some.train)
    assert all((points.ptr.diff() == 32).all() for points, _ in some.test)  # in parts, see `Voting`


def test_the_test_split_alone_needs_no_train(root):
    whole = build(root)
    (root / "main_split/training_objectdataset.h5").unlink()
    test, classes = build_points_test(config(root), batch_size=4)
    assert classes == whole.classes and same(list(test), list(whole.test))
    with pytest.raises(ValueError, match="batch size 0"):
        build_points_test(config(root), batch_size=0)


def test_classes_of_the_splits_must_agree(root):
    write(root / "main_split/test_objectdataset.h5", 10, seed=1, classes=4)
    with pytest.raises(ValueError, match="test_objectdataset.h5: label 3 is out of range, expected 0 to 2"):
        build(root)
    assert build(root, classes=("a", "b", "c", "d")).classes == ["a", "b", "c", "d"]
    write(root / "main_split/test_objectdataset.h5", 10, seed=1, classes=2)  # the last class is not tested
    assert build(root).classes == ["0", "1", "2"]
    for split, names in (("training", "a,b,c"), ("test", "a,c,b")):
        with h5py.File(root / f"main_split/{split}_objectdataset.h5", "r+") as file:
            file.attrs["classes"] = names
    with pytest.raises(ValueError, match="train and test have different classes: in another order"):
        build(root)


def test_data_that_is_not_there(root):
    with pytest.raises(FileNotFoundError, match="data.variant obj_bg is there"):
        build(root, variant="pb_t50_rs")
    with pytest.raises(ValueError, match="has no key 'rgb'; it has data, label"):
        build(root, features=("rgb",))
    with pytest.raises(ValueError, match="data.points 33: the clouds of .*training_objectdataset.h5 have 32 points"):
        build(root, points=33)
    with pytest.raises(ValueError, match="30 training clouds do not fill one batch of 16 x 2 processes; use a smaller"):
        build(root, batch_size=16, world_size=2)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"source": "shapenet"},
            "data.source 'shapenet': expected one of folder, modelnet40, scanobjectnn, shapes, or",
        ),
        ({"source": "modelnet40"}, "data.root is not set; expected the folder of modelnet40, see datasets/modelnet40"),
        ({"variant": "pb_t25"}, "data.variant must be one of obj_only, obj_bg, pb_t50_rs, got 'pb_t25'"),
        ({"sampling": "last"}, "data.sampling must be one of first, random, fps, got 'last'"),
        ({"features": "rgb"}, "data.features must be a list, got 'rgb'"),
        ({"features": ("rgb", "rgb")}, "data.features rgb, rgb: expected each name once"),
        ({"feature_scale": {"rgb": 0}}, "data.feature_scale.rgb must be above 0, got 0"),
        ({"normalize": "yes"}, "data.normalize must be one of none, center, unit_sphere, unit_cube, got 'yes'"),
        ({"rotate_axis": "y"}, "data.rotate_axis must be one of up, any, got 'y'"),
        ({"up": "w"}, "data.up must be one of x, y, z, got 'w'"),
        ({"max_points": 9}, "data.max_points 9 with data.points 1024; set points to null"),
        ({"fold": (3, 2)}, r"data.fold \(3, 2\): expected k, n with k from 1 to n"),
        ({"labels": "a.csv"}, "data.labels a.csv is for data.source folder, not shapes"),
        ({"points": 0}, "data.points must be at least 1, got 0"),
        ({"limit": 0}, "data.limit must be at least 1, got 0"),
        ({"workers": -1}, "data.workers must be at least 0, got -1"),
        ({"rotate": 200.0}, "data.rotate must be from 0 to 180, got 200.0"),
        ({"translate": float("nan")}, "data.translate must be at least 0, got nan"),
        ({"jitter": -0.1}, "data.jitter must be at least 0, got -0.1"),
        ({"dropout_ratio": 1.0}, "data.dropout_ratio must be at least 0 and below 1, got 1.0"),
        ({"val_fraction": 1.0}, "data.val_fraction must be at least 0 and below 1, got 1.0"),
        ({"scale": (1.5, 0.5)}, "data.scale 1.5, 0.5: expected two positive numbers, the smaller first"),
        ({"classes": ("a",)}, "data.classes is set, but data.source is shapes"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_points(PointDataConfig(**settings), **CALL)
    assert "\n" not in str(caught.value)


def test_all_augmentation_off_is_none_at_all():
    cfg = resolve(PointDataConfig(**PLAIN))
    points = PointSet.from_points(torch.rand(5, 3))
    assert train_transform(cfg)(points) is points


def test_every_setting_has_its_line_in_help_and_can_be_given():
    parser = ArgumentParser()
    parser.add_argument("--data", type=PointDataConfig, default=PointDataConfig())
    parsed = parser.parse_args(["--data.source=modelnet40", "--data.scale=[0.8,1.2]", "--data.classes=[a,b]"])
    data = parser.instantiate(parsed).data
    assert data.scale == (0.8, 1.2) and data.classes == ("a", "b")
    documented = set(re.findall(r"^    +(\w+): ", inspect.getdoc(PointDataConfig), flags=re.M))
    assert documented >= {field.name for field in dataclasses.fields(PointDataConfig)}
    filled = {"sampling": "first", "normalize": "none", "up": "y"}
    assert resolve(PointDataConfig()) == dataclasses.replace(PointDataConfig(), **filled)


# ---- real files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant, features", [("obj_only", ("rgb",)), ("obj_bg", ())])
def test_real_scans(variant, features):
    if "POINTMIX_DATA" not in os.environ:
        pytest.skip("POINTMIX_DATA does not name the folder of real data")
    root = Path(os.environ["POINTMIX_DATA"], "mosd_objects")
    splits = build(root, variant=variant, features=features, points=256, val_fraction=0.1, normalize="unit_sphere")
    assert splits.classes == ["box", "cylinder"] and len(splits.test.dataset) == 99
    points, targets = next(iter(splits.train))
    assert points.pos.shape == (4 * 256, 3) and points.feat.shape[1] == splits.model_kwargs["in_chans"]
    assert sum(len(t) for _, t in splits.val) == 10 and torch.isfinite(points.pos).all()


def test_a_share_of_the_points_of_the_test_split(root: Path) -> None:
    def clouds(keep: float, batch_size: int) -> list[PointSet]:
        test, _ = build_points_test(config(root), batch_size=batch_size, keep_ratio=keep)
        return [cloud for points, _ in test for cloud in points.unbind()]

    whole, half, less = clouds(1.0, 4), clouds(0.5, 4), clouds(0.25, 4)
    assert [len(c.pos) for c in (whole[0], half[0], less[0])] == [16, 8, 4]
    for a, b in zip((*half, *less), (*whole, *half), strict=True):  # those of a smaller share are among the larger's
        assert {*map(tuple, a.pos.tolist())} < {*map(tuple, b.pos.tolist())}
    assert all(torch.equal(a.pos, b.pos) for a, b in zip(half, clouds(0.5, 3), strict=True))
    for keep in (0.0, 1.5, float("nan"), 0.05):
        with pytest.raises(ValueError, match=f"keep {keep}"):
            clouds(keep, 4)
