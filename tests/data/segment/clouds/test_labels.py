from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.settings import label_rule
from pointmix.io.errors import BadMask


def classes(rule: LabelRule, *labels: float, kind: str = "i8") -> list[int]:
    return rule.classes_of(np.array(labels, kind), len(labels), "a.ply").tolist()


def test_labels_are_classes_and_255_and_minus_1_are_ignored():
    assert classes(LabelRule(3), 0, 2, 255, -1, 1) == [0, 2, -1, -1, 1]
    assert classes(LabelRule(3, ignore_index=7), 7, 2) == [-1, 2]
    assert classes(LabelRule(3), 0, 255, 2, kind="u1") == [0, -1, 2]
    assert classes(LabelRule(3), 0, -1, 2, kind=">f4") == [0, -1, 2]
    assert LabelRule(3).classes_of(np.array([[1], [2]]), 2, "a").tolist() == [1, 2]


def test_reduced_zero():
    assert classes(LabelRule(3, reduce_zero_label=True), 0, 1, 3, 255, -1) == [-1, 0, 2, -1, -1]


def test_a_map_of_labels_ignores_those_it_does_not_name():
    rule = LabelRule(4, {1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3, 9: -1})
    assert classes(rule, 1, 2, 3, 4, 5, 6, 9, 64, 0, 255, 1) == [0, 1, 2, 2, 2, 3, -1, -1, -1, -1, 0]


@pytest.mark.parametrize(
    "rule, labels, what",
    [
        (LabelRule(3), (0, 3, 4), "label 3 at point 1 .and 1 more points., expected 0 to 2, 255 or -1"),
        (LabelRule(3), (0, 1, -2), "label -2 at point 2 .and 0 more points."),
        (LabelRule(3, reduce_zero_label=True), (3, 4), "label 4 at point 1 .*, expected 1 to 3"),
        (LabelRule(3, ignore_index=0), (255,), "label 255 at point 0"),
        (LabelRule(3), (0, 1.5), "label 1.5 at point 1, expected whole numbers"),
        (LabelRule(3), (np.nan, 1.0), "label nan at point 0, expected whole numbers; data.nan drop ignores NaN"),
        (LabelRule(3, nan="drop"), (np.nan, 1, 1.5), "label 1.5 at point 2, expected whole numbers$"),
        (LabelRule(3, {1: 0}), (1, 1e30), "label 1e.30 at point 1, expected whole numbers"),
        (LabelRule(3, {1: 0}), (1, 0.5), "label 0.5 at point 1, expected whole numbers"),
    ],
)
def test_labels_beyond_the_classes_are_refused(rule, labels, what):
    with pytest.raises(BadMask, match=f"^a.ply: {what}"):
        classes(rule, *labels, kind="f8")


@pytest.mark.parametrize(
    "rule, expected",
    [
        (LabelRule(3, nan="drop"), [0, -1, 2]),
        (LabelRule(3, {0: 2, 2: 1, -1: 0}, nan="drop"), [2, -1, 1]),
        (label_rule(SegmentDataConfig(reduce_zero_label=True, nan="drop"), 3), [-1, -1, 1]),
        (label_rule(SegmentDataConfig(label_map={0: 1, 2: 0}, nan="drop"), 3), [1, -1, 0]),
    ],
)
def test_points_whose_label_is_nan_may_be_ignored(rule, expected):
    assert classes(rule, 0, np.nan, 2, kind="f4") == expected


def test_255_is_not_both_a_class_and_ignored():
    with pytest.raises(ValueError, match="label 255 is one of 256 classes, and ignored by default"):
        label_rule(SegmentDataConfig(), 256)
    rule = label_rule(SegmentDataConfig(ignore_index=300), 256)
    assert rule.classes_of(np.array([255, 300]), 2, "a.ply").tolist() == [255, -1]


def test_one_label_a_point():
    with pytest.raises(BadMask, match=r"^a: labels are \(4,\) int64, expected a whole number for each of 5 points"):
        LabelRule(3).classes_of(np.zeros(4, int), 5, "a")
    with pytest.raises(BadMask, match=r"labels are \(2, 2\)"):
        LabelRule(3).classes_of(np.zeros((2, 2), int), 2, "a")


def test_rules_that_contradict_themselves():
    with pytest.raises(ValueError, match="data.label_map 5: 3; expected a class from 0 to 2 or -1"):
        LabelRule(3, {5: 3})
    with pytest.raises(ValueError, match="data.label_map and data.reduce_zero_label are both set"):
        LabelRule(3, {5: 1}, reduce_zero_label=True)
