from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.segment import loaders, splits
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.loaders import Cached, Repeated, check_labels
from pointmix.data.segment.sample import LabeledCloud, LabeledImage
from pointmix.data.segment.source import SegmentEntry
from pointmix.data.segment.splits import build_segments, build_segments_test, with_feature_scale
from pointmix.data.splits import random_split
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.segment import toy

CALL = {"batch_size": 2, "seed": 0}


@pytest.fixture(autouse=True)
def plain_transforms(monkeypatch):
    def transform_of(cfg, *, training):
        return toy.flipped_or_not if training else toy.prepared

    monkeypatch.setattr(loaders, "transform_of", transform_of)
    monkeypatch.setattr(splits, "with_feature_scale", lambda cfg, source, chosen, quiet: (cfg, None))


def build(source="toy_images", **settings):
    call = CALL | {key: settings.pop(key) for key in (*CALL, "rank", "world_size") if key in settings}
    return build_segments(SegmentDataConfig(source=source, **settings), **call)


def read(loader):
    """(first row of labels, factor of the features) of every sample."""
    return [(one.labels.tolist(), one.points.feat.sum().item()) for one in loader]


def test_an_epoch_of_training_and_whole_samples_of_test():
    data = build(val_fraction=0.2)
    batches = list(data.train)
    assert len(batches) == len(data.train) == 4
    assert all(batch.points.num_sets == 2 and len(batch.labels) == 128 for batch in batches)
    assert [len(data.train.samples), len(data.val.samples), len(data.test.samples)] == [8, 2, 4]
    assert [batch.points.num_sets for batch in data.test] == [1] * 4
    expected = [toy.Toy(data.config, "test").read(i).label.reshape(-1).tolist() for i in range(4)]
    assert [batch.labels.tolist() for batch in data.test] == expected
    assert (data.classes, data.in_chans, data.coord_dims, data.categories) == (list(toy.CLASSES), 3, 2, None)
    assert data.palette == [(1, 2, 3), (4, 5, 6), (7, 8, 9)] and data.config.crop_size == (8, 8)


def messy(index, *, all_bad=False):
    """A cloud whose first points are not finite."""
    rng = np.random.default_rng(index)
    pos, value, label = rng.random((12, 3)), np.arange(12.0), np.arange(12) % 3
    pos[: 12 if all_bad else 1], value[1] = np.nan, np.inf
    return LabeledCloud(pos, {"value": value, "other": np.full(12, np.nan), "pose": np.eye(4)}, label, 0)


@pytest.mark.parametrize("cache", [False, True])
def test_points_that_are_not_finite_are_left_out_and_counted(monkeypatch, cache):
    monkeypatch.setattr(toy.ToyClouds, "read", lambda self, index: messy(index, all_bad=index == 1))
    with pytest.warns(UserWarning, match="test/0.ply: 2 points dropped, NaN or infinite"):
        data = build("toy_clouds", val_fraction=0.0, nan="drop", cache=cache)
        batches = [*data.train, *data.test]
    assert all(batch.points.pos.isfinite().all() and batch.points.feat.isfinite().all() for batch in batches)
    for batch in data.test:
        assert batch.labels.tolist() == [2, *[0, 1, 2] * 3] and len(batch.points.pos) == 10
    assert dict(data.skipped())["test/1.ply"] == "all 12 points hold NaN or infinite values"


def test_the_scale_of_the_training_clouds_is_kept_and_another_one_is_warned_of(monkeypatch):
    monkeypatch.setattr(splits, "with_feature_scale", with_feature_scale)
    data = build("toy_clouds", normalize="center")
    pos = [toy.ToyClouds(data.config, "train").read(int(i)).pos for i in data.train.samples.indices]
    assert data.extent == pytest.approx(np.median([np.linalg.norm(np.ptp(p, axis=0)) for p in pos]))
    assert data.config.feature_scale == {"value": pytest.approx(0.35, abs=0.1)} and build().extent is None
    cfg = SegmentDataConfig(source="toy_clouds")
    with pytest.warns(UserWarning, match="test clouds: 1.* from corner .* data 1e.03; are the units"):
        build_segments_test(cfg, extent=1000.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_segments_test(cfg, extent=data.extent)
        build_segments_test(cfg)


def test_clouds_far_from_the_origin_are_warned_of_where_nothing_centers_them(monkeypatch):
    monkeypatch.setattr(splits, "with_feature_scale", with_feature_scale)
    read = toy.ToyClouds.read

    def far(self, index):
        cloud = read(self, index)
        return dataclasses.replace(cloud, pos=cloud.pos + 500_000)

    monkeypatch.setattr(toy.ToyClouds, "read", far)
    with pytest.warns(UserWarning, match="training clouds: up to 500001 from the origin .* data.normalize is none"):
        build("toy_clouds", normalize="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("toy_clouds", normalize="none", rank=1, world_size=2)  # the first process warns


def test_what_is_held_out_is_not_trained_on_and_depends_on_split_seed_alone():
    data, other = build(val_fraction=0.3, seed=1), build(val_fraction=0.3, seed=2)
    train, val = set(data.train.samples.indices.tolist()), set(data.val.samples.indices.tolist())
    assert len(train) == 7 and len(val) == 3 and not train & val
    assert val == set(other.val.samples.indices.tolist())
    assert val != set(build(val_fraction=0.3, split_seed=5).val.samples.indices.tolist())


def test_the_validation_split_of_the_data_is_used_unless_a_fraction_is_asked_for():
    assert [len(s.samples) for s in (build("toy_own_val").train, build("toy_own_val").val)] == [10, 2]
    held = build("toy_own_val", val_fraction=0.5)
    assert [len(held.train.samples), len(held.val.samples)] == [5, 5]
    assert build("toy_own_val", val_fraction=0.0).val is None
    assert len(build().val.samples) == 1  # a tenth, where the data have none


@pytest.mark.parametrize("number, fraction, count", [(10, 0.25, 2), (1, 0.5, 0), (2, 0.01, 1), (3, 0.99, 2), (5, 0, 0)])
def test_random_split(number, fraction, count):
    first, second = random_split(number, fraction=fraction, seed=3)
    assert len(second) == count and sorted([*first, *second]) == list(range(number))
    assert (np.diff(first) > 0).all()


def test_each_repetition_of_a_sample_has_its_own_augmentation():
    data = build(val_fraction=0.0, limit=2, repeat=3)
    assert len(data.train) == 3 and len(data.train.samples) == 6
    data.set_epoch(0)
    seen = [(one.labels[:64].tolist(), one.points.feat[:64].sum().item()) for one in data.train]
    assert len({factor for _, factor in read(data.train)}) == 3
    assert len({tuple(labels) for labels, _ in seen}) <= 2
    names = [data.train.samples.source.name(int(i)) for i in data.train.samples.indices]
    assert names[:2] == names[2:4] == names[4:] and len(set(names)) == 2
    data.set_epoch(0)
    assert read(data.train) == read(build(val_fraction=0.0, limit=2, repeat=3).train)


def test_the_same_samples_for_any_number_of_processes_and_after_a_resumption():
    whole = build(val_fraction=0.0, batch_size=4)
    parts = [build(val_fraction=0.0, rank=rank, world_size=2) for rank in range(2)]
    first = next(iter(whole.train))
    halves = [next(iter(part.train)) for part in parts]
    torch.testing.assert_close(first.points.feat, torch.cat([half.points.feat for half in halves]), rtol=0, atol=0)
    assert sum(len(read(part.test)) for part in parts) == 4

    data = build(val_fraction=0.0)
    data.set_epoch(3)
    batches = iter(data.train)
    next(batches), next(batches)
    state, rest = data.train.state_dict(), [batch.points.feat for batch in batches]
    again = build(val_fraction=0.0)
    again.train.load_state_dict(state)
    for one, other in zip(rest, again.train, strict=True):
        assert torch.equal(one, other.points.feat)


def test_clouds_have_categories_and_the_channels_of_their_features():
    data = build("toy_clouds")
    assert (data.in_chans, data.coord_dims) == (1, 3)
    assert data.categories == {"even": [0, 1], "odd": [1, 2]} and data.palette is None
    assert [batch.category.tolist() for batch in data.test] == [[0], [1], [0], [1]]


def test_test_data_alone():
    loader, source = build_segments_test(SegmentDataConfig(source="toy_images"))
    assert len(list(loader)) == 4 and source.split == "test"


def test_damaged_samples_are_skipped_and_counted(monkeypatch):
    monkeypatch.setattr(toy.Toy, "read", damaged := _damaged(toy.Toy.read, {0, 1}))
    data = build(val_fraction=0.0)
    assert sum(batch.points.num_sets for batch in data.train) == 10 and len(list(data.test)) == 2
    assert {name for name, _ in data.skipped()} == {"train/0.png", "train/1.png", "test/0.png", "test/1.png"}
    with pytest.raises(UnreadableSample, match="data.strict"):
        list(build(val_fraction=0.0, strict=True).test)
    monkeypatch.setattr(toy.Toy, "read", _damaged(damaged, set(range(10))))
    with pytest.raises(UnreadableSample, match=r"10 samples in a row are damaged; train/9.png: torn"):
        build(val_fraction=0.0)


def _damaged(read, indices):
    def reading(self, index):
        if index in indices:
            raise UnreadableSample("torn")
        return read(self, index)

    return reading


def test_a_label_beyond_the_classes_ends_the_epoch(monkeypatch):
    data = build(val_fraction=0.0)
    data.test.samples.source.labels = {2: 3}
    with pytest.raises(BadMask, match=r"test/2.png: label 3 at pixel row 0, column 1, expected classes 0 to 2 or -1"):
        list(data.test)
    monkeypatch.setattr(data.test.samples, "transform", _misfit)
    with pytest.raises(BadMask, match="test/0.png: labels are 1x1"):
        list(data.test)
    monkeypatch.undo()
    first = toy.Toy(data.config, "train")
    first.labels = dict.fromkeys(range(10), 3)
    entry = dataclasses.replace(splits.SEGMENT_SOURCES.find("toy_images"), open=lambda config, split: first)
    monkeypatch.setitem(splits.SEGMENT_SOURCES._entries, "toy_images", entry)
    with pytest.raises(BadMask, match=r"^train/\d.png: label 3 at pixel row 0"):
        build()


def test_an_ignored_label_is_no_error():
    data = build(val_fraction=0.0)
    data.test.samples.source.labels = {2: -1}
    assert len(list(data.test)) == 4


def _misfit(raw):
    raise BadMask("labels are 1x1")


def test_labels_of_points():
    with pytest.raises(BadMask, match="a.las: label -2 at point 1, expected classes 0 to 4"):
        check_labels(np.array([4, -2, 9]), 5, name="a.las")
    with pytest.raises(BadMask, match="a.las: labels are float64, expected integers"):
        check_labels(np.array([0.5]), 5, name="a.las")
    check_labels(np.array([4, -1, 0]), 5, name="a.las")
    check_labels(np.zeros(0, int), 5, name="a.las")


def test_the_labels_of_the_training_samples_are_counted_once_each(monkeypatch):
    monkeypatch.setattr(toy.Toy, "read", _damaged(toy.Toy.read, {3}))
    data = build(val_fraction=0.2, repeat=2)
    own = [i for i in data.train.samples.indices.tolist() if i < 10 and i != 3]
    labels = np.concatenate([toy.Toy(data.config, "train").read(i).label.ravel() for i in own])
    assert data.label_counts() == np.bincount(labels, minlength=3).tolist()


def test_a_cache_reads_every_sample_once():
    source = toy.Toy(SegmentDataConfig(), "train")
    source.damaged = (1,)
    cached = Cached(source, [0, 1, 3])
    repeated = Repeated(cached)
    assert source.reads == 3
    for _ in range(2):
        assert repeated.read(13) is cached.read(3)
        with pytest.raises(UnreadableSample, match="torn"):
            repeated.read(11)
    assert source.reads == 3
    data = build(val_fraction=0.5, cache=True, repeat=2)
    source = data.train.samples.source.source.source  # below the repetitions and the cache
    reads = source.reads
    assert len(list(data.train)) == 5 and len(list(data.val)) == 5
    assert source.reads == reads == 10


def test_what_a_source_lacks(monkeypatch):
    with pytest.raises(ValueError, match="11 training samples do not fill|10 training samples do not fill"):
        build(val_fraction=0.0, batch_size=11)
    monkeypatch.setitem(toy.COUNTS, "test", 0)
    with pytest.raises(ValueError, match="the test split of data.source toy_images has no samples"):
        build()
    monkeypatch.setitem(toy.COUNTS, "test", 4)
    entry = splits.SEGMENT_SOURCES.find("toy_images")
    none = dataclasses.replace(entry, open=lambda config, split: None)
    monkeypatch.setitem(splits.SEGMENT_SOURCES._entries, "toy_images", none)
    with pytest.raises(ValueError, match="data.source toy_images has no split train"):
        build()


def test_splits_of_other_classes_are_refused(monkeypatch):
    entry = splits.SEGMENT_SOURCES.find("toy_images")

    def opened(config, split):
        return None if split == "val" else toy.Toy(dataclasses.replace(config, classes=("a", split)), split)

    monkeypatch.setitem(splits.SEGMENT_SOURCES._entries, "toy_images", dataclasses.replace(entry, open=opened))
    with pytest.raises(ValueError, match="train and test have different classes: train only in train; test only in"):
        build()


def test_workers_read_the_same():
    data, other = build(val_fraction=0.0), build(val_fraction=0.0, workers=1)
    assert read(data.train) == read(other.train)


def test_scales_of_features_follow_from_what_is_trained_on(monkeypatch):
    monkeypatch.undo()
    data = build("toy_clouds", val_fraction=0.5, min_points=1)
    source = toy.ToyClouds(data.config, "train")
    trained, every = (
        np.concatenate([source.read(int(i)).features["value"] for i in indices])
        for indices in (data.train.samples.indices, range(10))
    )
    assert data.config.feature_scale == {"value": pytest.approx(trained.std())} and trained.std() != every.std()


def test_depth_images_as_clouds(monkeypatch):
    labels = np.array([[0, 1], [2, -1]])

    class Depth(toy.Toy):
        def read(self, index):
            depth = np.array([[1.0, 0.0], [2.0, 1.0]], np.float32)
            image = Image.new("RGB", (2, 2), (255, 0, 51))
            return LabeledImage(image, labels, depth=depth, intrinsics=(1.0, 1.0, 0.5, 0.5))

    monkeypatch.undo()
    entry = SegmentEntry(lambda config, split: None if split == "val" else Depth(config, split), "rgbd")
    monkeypatch.setitem(splits.SEGMENT_SOURCES._entries, "toy_rgbd", entry)
    data = build("toy_rgbd", rgbd="cloud", min_points=2, val_fraction=0.0)
    assert (data.in_chans, data.coord_dims, data.config.feature_scale) == (3, 3, {"rgb": 255.0})
    whole = next(iter(data.test))
    assert whole.labels.tolist() == [0, 2, -1] and whole.points.feat[0].tolist() == pytest.approx([1, 0, 0.2])
    data = build("toy_rgbd", crop_size=(2, 2), val_fraction=0.0)
    assert (data.in_chans, data.coord_dims) == (4, 2) and len(next(iter(data.test)).labels) == 4
    data = build("toy_rgbd", rgbd="lattice", crop_size=(2, 2), val_fraction=0.0)
    assert next(iter(data.test)).labels.tolist() == [0, 2, -1]
