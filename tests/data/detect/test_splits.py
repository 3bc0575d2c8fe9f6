from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.loaders import check_objects
from pointmix.data.detect.source import DETECT_SOURCES
from pointmix.data.detect.splits import build_detect, build_detect_test
from pointmix.data.grouped_sampler import GroupedBatches
from pointmix.io.errors import BadMask, UnreadableSample
from tests.data.detect import toy
from tests.data.detect.toy import Toy, image_of, objects_of

CALL = {"batch_size": 2, "seed": 0}


def build(source="toy_objects", **settings):
    call = CALL | {key: settings.pop(key) for key in (*CALL, "rank", "world_size") if key in settings}
    return build_detect(DetectDataConfig(source=source, **settings), **call)


def same(one, other):
    assert one.sizes.tolist() == other.sizes.tolist() and torch.equal(one.points.feat, other.points.feat)
    for a, b in zip(one.targets, other.targets, strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.labels, b.labels) and torch.equal(a.masks, b.masks)


def replaced(monkeypatch, open_split):
    entry = dataclasses.replace(DETECT_SOURCES.find("toy_objects"), open=open_split)
    monkeypatch.setitem(DETECT_SOURCES._entries, "toy_objects", ("toy_objects", entry))


@pytest.fixture
def changed(monkeypatch):
    """Changes the sources that are opened."""

    def change(**values):
        entry = DETECT_SOURCES.find("toy_objects")

        def opened(config, split):
            source = entry.open(config, split)
            for name, value in values.items():
                if source is not None:
                    setattr(source, name, value(split) if callable(value) else value)
            return source

        replaced(monkeypatch, opened)

    return change


def test_an_epoch_of_training_and_one_image_a_batch_of_the_others():
    data = build(val_fraction=0.2)
    batches = list(data.train)
    assert len(batches) == len(data.train) == 4
    assert all(len(batch.targets) == batch.points.num_sets == 2 and batch.truths is None for batch in batches)
    assert [len(data.train.samples), len(data.val.samples), len(data.test.samples)] == [8, 2, 4]
    assert [[truth.image_id for truth in batch.truths] for batch in data.test] == [[0], [1], [2], [3]]
    assert [batch.truths[0].name for batch in data.test] == [f"test/{i}.png" for i in range(4)]
    assert all(batch.targets is None for batch in data.test)
    assert [batch.truths[0].size for batch in data.test] == [(20, 30), (30, 20)] * 2
    assert (data.classes, data.category_ids, data.has_masks, data.in_chans) == (["a", "b", "c"], [7, 3, 20], True, 3)
    assert data.config.hflip == 0.5 and data.config.short_side == 20


def test_what_is_held_out_is_not_trained_on_and_depends_on_split_seed_alone():
    data, other = build(val_fraction=0.3, seed=1), build(val_fraction=0.3, seed=2)
    train, val = set(data.train.samples.indices.tolist()), set(data.val.samples.indices.tolist())
    assert len(train) == 7 and len(val) == 3 and not train & val
    assert val == set(other.val.samples.indices.tolist())
    assert val != set(build(val_fraction=0.3, split_seed=5).val.samples.indices.tolist())
    assert len(build(val_fraction=0.0, limit=3).train.samples) == 3


def test_the_validation_split_of_the_data_is_used_unless_a_fraction_is_asked_for():
    assert [len(s.samples) for s in (build("toy_own_val").train, build("toy_own_val").val)] == [10, 2]
    held = build("toy_own_val", val_fraction=0.5)
    assert [len(held.train.samples), len(held.val.samples)] == [5, 5]
    assert build("toy_own_val", val_fraction=0.0).val is None and len(build().val.samples) == 1


def test_images_of_one_orientation_are_batched():
    data = build(val_fraction=0.0)
    assert isinstance(data.train.batches, GroupedBatches)
    wide = [{tuple(size) for size in batch.sizes.tolist()} for batch in data.train]
    assert sum(len(sizes) > 1 for sizes in wide) == 1  # five of each: the last two are left over
    assert {len(batch.targets) for batch in build(val_fraction=0.0, max_pixels=1100, batch_size=4).train} == {1}


def test_the_same_batches_for_any_number_of_processes_and_after_a_resumption():
    settings = {"val_fraction": 0.0, "train_short_sides": (16, 20, 28), "copy_paste": 0.5, "photometric": True}
    whole = build(batch_size=4, **settings)
    parts = [build(rank=rank, world_size=2, **settings) for rank in range(2)]
    whole.set_epoch(3), [part.set_epoch(3) for part in parts]
    for batch, *halves in zip(whole.train, *(part.train for part in parts), strict=True):
        assert batch.sizes.tolist() == sum((half.sizes.tolist() for half in halves), [])
        for a, b in zip(batch.targets, sum((half.targets for half in halves), []), strict=True):
            assert torch.equal(a.boxes, b.boxes) and torch.equal(a.masks, b.masks)
    assert sorted(batch.truths[0].image_id for part in parts for batch in part.test) == [0, 1, 2, 3]

    data = build(**settings)
    data.set_epoch(3)
    batches = iter(data.train)
    next(batches), next(batches)
    state, rest = data.train.state_dict(), list(batches)
    again = build(workers=1, **settings)
    again.train.load_state_dict(state)
    for one, other in zip(rest, again.train, strict=True):
        same(one, other)


def test_copy_paste_takes_objects_of_other_training_images():
    data = build(val_fraction=0.0, copy_paste=1.0, hflip=0.0)
    plain = build(val_fraction=0.0, hflip=0.0)
    more = (
        [len(t.labels) for b in data.train for t in b.targets],
        [len(t.labels) for b in plain.train for t in b.targets],
    )
    assert sum(more[0]) > sum(more[1]) == 30


def test_boxes_alone(changed):
    data = build(masks=False, val_fraction=0.0)
    assert not data.has_masks and next(iter(data.train)).targets[0].masks is None
    assert next(iter(data.test)).truths[0].objects.masks is None
    changed(has_masks=lambda split: split == "train")
    with pytest.warns(UserWarning, match="no masks are read: a split of data.source toy_objects has boxes only"):
        assert not build(val_fraction=0.0).has_masks
    with pytest.raises(ValueError, match="data.masks is true, but the objects of data.source toy_objects have boxes"):
        build(masks=True)
    with pytest.raises(ValueError, match="data.copy_paste 0.5 needs masks, but objects have boxes only"):
        build(copy_paste=0.5)


def test_images_without_objects(changed):
    changed(empty=(0, 1, 2, 3))
    expected = r"left out 4 of 10 training images, which have no objects \(the first is train/0.png\); data.keep_empty"
    with pytest.warns(UserWarning, match=expected):
        data = build(val_fraction=0.0)
    assert len(data.train.samples) == 6 and len(data.test.samples) == 4
    assert len(build(val_fraction=0.0, keep_empty=True).train.samples) == 10
    with pytest.warns(UserWarning, match="left out 2 of 5 training images"):
        assert len(build(val_fraction=0.5).val.samples) == 5  # what is held out keeps them
    changed(empty=tuple(range(10)))
    with pytest.raises(
        ValueError, match="none of 10 training images has an object, expected some; see data.keep_empty"
    ):
        build(val_fraction=0.0)
    batch = next(iter(build(val_fraction=0.0, keep_empty=True).train))
    assert [len(target.labels) for target in batch.targets] == [0, 0]


def test_damaged_images_are_skipped_and_counted(changed):
    changed(damaged=lambda split: (0, 1))
    data = build(val_fraction=0.0, copy_paste=1.0)
    assert sum(len(batch.targets) for batch in data.train) == 10 and len(list(data.test)) == 2
    assert {name for name, _ in data.skipped()} == {"train/0.png", "train/1.png", "test/0.png", "test/1.png"}
    with pytest.raises(UnreadableSample, match="data.strict"):
        list(build(val_fraction=0.0, strict=True).test)
    changed(damaged=lambda split: tuple(range(10)))
    with pytest.raises(UnreadableSample, match=r"10 images in a row are damaged; train/9.png: torn"):
        build(val_fraction=0.0)


def test_a_batch_of_fewer_images_because_of_their_pixels_is_whole():
    data = build(val_fraction=0.0, max_pixels=2200, batch_size=3)
    assert sorted(len(batch.targets) for batch in data.train) == [2] * 5 and len(data.train) == 5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"labels": [3]}, r"a.png: object 0 has class 3, expected 0 to 2"),
        ({"labels": [-1]}, r"a.png: object 0 has class -1"),
        ({"boxes": [[5, 5, 5, 9]]}, r"a.png: object 0 has the box 5, 5, 5, 9, expected x1 < x2"),
        ({"boxes": [[5, 5, 4, 9]]}, r"a.png: object 0 has the box 5, 5, 4, 9"),
        ({"boxes": [[30, 5, 40, 9]]}, r"object 0 has the box 30, 5, 40, 9, expected .* image of 20x30"),
        ({"boxes": [[np.nan, 5, 9, 9]]}, r"a.png: object 0 has the box nan, 5, 9, 9"),
        ({"boxes": [[1, 5, np.inf, 9]]}, r"a.png: object 0 has the box 1, 5, inf, 9"),
    ],
)
def test_objects_that_do_not_fit(values, message):
    good = objects_of([[1, 2, 5, 6]], size=(20, 30))
    bad = dataclasses.replace(good, **{key: np.array(value) for key, value in values.items()})
    sample = dataclasses.replace(image_of(good, (20, 30)), objects=bad)
    with pytest.raises(BadMask, match=message):
        check_objects(sample, 3, name="a.png")
    check_objects(image_of(good, (20, 30)), 3, name="a.png")


def test_a_mask_of_another_size_ends_the_epoch(monkeypatch):
    sample = dataclasses.replace(image_of(objects_of([[1, 2, 5, 6]], size=(20, 30)), (20, 30)))
    sample = dataclasses.replace(sample, objects=objects_of([[1, 2, 5, 6]], size=(30, 20)))
    data = build()
    monkeypatch.setattr(Toy, "read", lambda self, index: sample)
    with pytest.raises(BadMask, match=r"test/0.png: the mask of object 0 is 30x20, its image 20x30"):
        list(data.test)
    with pytest.raises(BadMask, match=r"train/\d.png: the mask of object 0 is 30x20"):
        build()


def test_images_of_two_splits_are_told_of(changed):
    changed(split="all")
    with pytest.warns(UserWarning, match=r"^4 images are in both train and test: all/0.png, all/1.png, all/2.png"):
        build(val_fraction=0.0)


def test_test_data_alone():
    loader, source = build_detect_test(DetectDataConfig(source="toy_objects", in_chans=1))
    assert len(list(loader)) == 4 and source.split == "test"
    assert next(iter(loader)).points.feat.shape[1] == 1


def test_a_cache_reads_every_image_once():
    data = build(val_fraction=0.5, cache=True, copy_paste=1.0)
    source = data.train.samples.source
    reads = source.reads
    assert reads == 10 and len(list(data.train)) == 2 and len(list(data.val)) == 5 and source.reads == reads


def test_what_a_source_lacks(monkeypatch, changed):
    with pytest.raises(ValueError, match="10 training samples do not fill one batch of 11"):
        build(val_fraction=0.0, batch_size=11)
    with pytest.raises(ValueError, match="data.source 'nothing': expected one of .*scenes"):
        build("nothing")
    monkeypatch.setitem(toy.COUNTS, "test", 0)
    changed(count=lambda split: toy.COUNTS[split])
    with pytest.raises(ValueError, match="the test split of data.source toy_objects has no images"):
        build()
    changed(count=3, classes=lambda split: ())
    with pytest.raises(ValueError, match="data.source toy_objects names no classes"):
        build()
    changed(count=3, classes=lambda split: ("a", split))
    with pytest.raises(ValueError, match="train and test have different classes: train only in train; test only in"):
        build()
    replaced(monkeypatch, lambda config, split: None)
    with pytest.raises(ValueError, match="data.source toy_objects has no split train"):
        build()
