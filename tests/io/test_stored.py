"""Forms in which one file holds many clouds, and their labels."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from pointmix.io.stored import find_clouds

POS = np.random.default_rng(0).random((8, 3))
LABELS = ("label", "kind")


@pytest.mark.parametrize(
    "arrays",
    [
        {"ptr": np.array([0, 4, 5, 8])},
        {"offset": np.array([4, 5, 8])},
        {"offset": np.array([0, 4, 5, 8])},
        {"lengths": np.array([4, 1, 3])},
        {"batch": np.array([0, 0, 0, 0, 1, 2, 2, 2])},
    ],
)
def test_clouds_one_after_the_other(arrays):
    found = find_clouds({"pos": POS, **arrays})
    clouds = [found.array(i, "pos") for i in range(len(found))]
    assert all(np.array_equal(a, b) for a, b in zip(clouds, np.split(POS, [4, 5]), strict=True))
    assert found.keys(0) == []


def test_features_with_such_names_are_features():
    assert find_clouds({"pos": POS, "sizes": POS[:, 0]}).keys(0) == ["sizes"]
    assert find_clouds({"pos": POS, "batch": POS}).keys(0) == ["batch"]
    assert len(find_clouds({"pos": POS, "batch": np.array(3)})) == 1


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"ptr": np.array([0, 5, 3, 8])}, "ptr must rise, it goes from 5 to 3 at cloud 1"),
        ({"ptr": np.array([0, 5, 9])}, "ptr divides 9 points into 2 clouds, expected all 8 of pos"),
        ({"ptr": np.array([2, 5, 8])}, "ptr begins at 2, expected 0"),
        ({"ptr": np.array([0, 5, 5, 8])}, "ptr gives cloud 1 of 3 no point, expected at least one"),
        ({"ptr": np.array([0])}, "ptr names no cloud"),
        ({"offset": np.array([5, 2, 8])}, "offset must rise, it goes from 5 to 2 at cloud 1"),
        ({"lengths": np.array([5, 0, 3])}, "lengths gives cloud 1 of 3 no point"),
        ({"lengths": np.array([9, -1])}, "lengths must rise, it goes from 9 to 8 at cloud 1"),
        ({"batch": np.array([0, 0, 2, 2, 2, 2, 2, 2])}, "batch is 2 at point 2; it must begin at 0 and rise by 0 or 1"),
        ({"batch": np.array([0, 1, 0, 1, 1, 1, 1, 1])}, "batch is 0 at point 2; it must"),
        ({"batch": np.ones(8, int)}, "batch is 1 at point 0; it must begin at 0"),
    ],
)
def test_points_that_are_not_divided_into_clouds(arrays, message):
    with pytest.raises(ValueError, match=message):
        find_clouds({"pos": POS, **arrays})


@pytest.mark.parametrize(
    "label, expected",
    [
        (np.array([2, 0, 1], np.uint8), [2, 0, 1]),
        (np.array([[2.0], [0.0], [1.0]]), [2, 0, 1]),
        (np.array(["a", "b", "a"]), ["a", "b", "a"]),
        (np.array([b"a", b"b", b"a"]), ["a", "b", "a"]),
    ],
)
def test_a_label_a_cloud(label, expected):
    ragged = {"pos": POS, "ptr": np.array([0, 4, 5, 8])}
    for arrays in (ragged, {"data": POS[None].repeat(3, 0)}, {f"cloud_{i}": POS for i in range(3)}):
        assert find_clouds({**arrays, "Label": label}).labels(LABELS) == expected
        assert find_clouds(arrays).labels(LABELS) is None


def test_a_label_a_group(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, label in (("c10", "cup"), ("c2", "box"), ("c3", "box")):
            file[f"{name}/pos"], file[name].attrs["kind"] = POS, label
        assert find_clouds(file).labels(LABELS) == ["box", "box", "cup"]
        file["c2/label"] = np.array([3])
        with pytest.raises(ValueError, match="1 of 3 clouds have a label, expected one a cloud"):
            find_clouds(file).labels(("label",))
        file["c3/label"], file["c10/label"] = 4, "cup"
        with pytest.raises(ValueError, match="the labels of some clouds are numbers, those of others are text"):
            find_clouds(file).labels(("label",))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"], file["label"] = POS[None].repeat(2, 0), ["box", "cup"]  # text of any length
        assert find_clouds(file).labels(LABELS) == ["box", "cup"]
        del file["label"]
        file["label"] = ["box", "c" * 300]
        with pytest.raises(ValueError, match="label has the value 'ccc.*expected a number, or text of 1 to 200"):
            find_clouds(file).labels(LABELS)


@pytest.mark.parametrize(
    "label, message",
    [
        (np.array([0, 1]), r"label is \(2,\), expected \(3,\), one a cloud"),
        (np.zeros(8, int), r"label is \(8,\), expected \(3,\), one a cloud"),
        (np.array([0, 0.5, 1]), "label has values of float64 that are not whole"),
        (np.array([0, np.nan, 1]), "label has values of float64 that are not whole"),
        (np.array([0, 1e300, 1]), "label has the value 1e.300, expected numbers of at most 2.53"),
        (np.array([0, 2**63 + 5, 1], np.uint64), "label has the value 9223372036854775813, expected numbers of at"),
        (np.array(["a", "", "b"]), "label has the value '', expected a number, or text"),
        ({"a": 1}, "label is a group, expected an array"),
    ],
)
def test_labels_that_do_not_fit(label, message):
    with pytest.raises(ValueError, match=message):
        find_clouds({"pos": POS, "ptr": np.array([0, 4, 5, 8]), "label": label}).labels(LABELS)
