from __future__ import annotations

import numpy as np
import pycocotools.mask as reference
import pytest

from pointmix.data.detect import masks as rle
from pointmix.utils.limits import TooLarge


def some_masks(count=3, size=(9, 13)):
    generator = np.random.default_rng(0)
    masks = (generator.random((count, *size)) < [[[0.1]], [[0.5]], [[0.9]]]).astype(np.uint8)
    return masks


def test_masks_there_and_back_and_their_area_and_box():
    masks = some_masks()
    encoded = rle.encode(masks)
    assert [mask["size"] for mask in encoded] == [[9, 13]] * 3
    assert (rle.decode(encoded, (9, 13)) == masks).all()
    assert (rle.encode(masks.astype(bool))) == encoded
    assert [reference.encode(np.asfortranarray(mask)) for mask in masks] == list(encoded)
    assert rle.area(encoded).tolist() == masks.sum((1, 2)).tolist()
    for box, mask in zip(rle.boxes(encoded), masks, strict=True):
        rows, cols = np.nonzero(mask)
        assert box.tolist() == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


def test_no_mask_and_an_empty_one():
    assert rle.encode(np.zeros((0, 4, 5), np.uint8)) == ()
    assert rle.decode((), (4, 5)).shape == (0, 4, 5)
    assert rle.area(()).shape == (0,) and rle.boxes(()).shape == (0, 4)
    (empty,) = rle.encode(np.zeros((1, 4, 5), np.uint8))
    assert rle.area([empty]) == 0 and not rle.boxes([empty]).any()


def test_polygons_are_those_of_coco():
    polygons = [np.array([[1, 1], [8.5, 2], [4, 7.2]]), np.array([[-3, 4], [20, 4.0], [9, 30]])]
    mask = rle.from_polygons(polygons, (9, 13))
    expected = reference.merge(reference.frPyObjects([polygon.ravel().tolist() for polygon in polygons], 9, 13))
    assert mask == expected and mask["size"] == [9, 13]
    square = rle.from_polygons([np.array([[2, 3], [6, 3], [6, 5], [2, 5.0]])], (9, 13))
    assert rle.area([square]) == 8 and rle.boxes([square]).tolist() == [[2, 3, 6, 5]]


def test_an_outline_that_would_fill_the_memory():
    with pytest.raises(TooLarge, match="the outline of an object"):
        rle.from_polygons([np.array([[0, 0], [1e300, 0], [0, 1e9]])], (9, 13))
    with pytest.raises(TooLarge, match="the masks of an image"):
        rle.decode([{"size": [10**6] * 2, "counts": b""}], (1, 1))


def test_run_lengths_of_files():
    mask = some_masks()[1]
    (encoded,) = rle.encode(mask[None])
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    counts = np.diff(edges, prepend=0).tolist()
    assert rle.from_counts(counts, (9, 13)) == encoded
    assert rle.from_counts(encoded["counts"], (9, 13)) == encoded
    assert rle.from_counts(encoded["counts"].decode(), (9, 13)) == encoded
    large = rle.encode(np.pad(mask[None], ((0, 0), (500, 700), (900, 3))))[0]
    assert rle.from_counts(large["counts"], tuple(large["size"])) == large


@pytest.mark.parametrize(
    "counts, message",
    [
        ([3, 4, 29], "run lengths sum to 36, expected 5 x 7"),
        ([3, -4, 36], "not whole numbers"),
        ([3.0, 32.0], "not whole numbers"),
        ([True, 34], "not whole numbers"),
        (None, "not whole numbers"),
        ({"a": 1}, "not whole numbers"),
        ("34l", "cut off"),
        ("3é", "not COCO's compressed text"),
        ("l" * 100, "not COCO's compressed text"),
        (b"34l0" * 2, "run lengths sum to"),
    ],
)
def test_run_lengths_that_do_not_fit(counts, message):
    with pytest.raises(ValueError, match=message):
        rle.from_counts(counts, (5, 7))


def test_numbered_objects():
    numbers = np.array([[0, 7, 7, 0], [3, 7, 0, 300], [3, 0, 7, 300]], dtype=np.uint16)
    found, masks = rle.from_numbers(numbers)
    assert found.tolist() == [3, 7, 300]
    assert (rle.decode(masks, (3, 4)) == (numbers == found[:, None, None])).all()
    assert list(masks) == list(rle.encode(numbers == found[:, None, None]))
    for values, count in ((np.zeros((3, 4), np.int64), 0), (np.full((3, 4), 5), 1)):
        found, masks = rle.from_numbers(values)
        assert len(found) == len(masks) == count and rle.area(masks).tolist() == [12] * count


def test_the_fallback_gives_the_same(monkeypatch):
    masks = some_masks()
    ours = (
        rle.encode(masks),
        rle.from_numbers(masks[0]),
        rle.from_polygons([np.array([[1, 1], [8, 2], [4, 7.0]])], (9, 13)),
    )
    monkeypatch.setattr(rle, "COCO", reference)
    other = (
        rle.encode(masks),
        rle.from_numbers(masks[0]),
        rle.from_polygons([np.array([[1, 1], [8, 2], [4, 7.0]])], (9, 13)),
    )
    assert ours[0] == other[0] and ours[1][1] == other[1][1] and ours[2] == other[2]
    assert (rle.decode(other[0], (9, 13)) == masks).all()
