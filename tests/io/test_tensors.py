"""Arrays with negative strides, in another byte order, read-only: what takes arrays takes them all."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix import PointSet
from pointmix.io.tensors import as_tensor

RNG = np.random.default_rng(0)
IMAGE, MASK, DEPTH = RNG.random((4, 5, 3)), np.eye(4, 5), 1 + RNG.random((4, 5))
XYZ, VALUES = RNG.random((6, 3)), RNG.random((6, 2)).astype(np.float32)
ROWS, COLS = np.arange(6), np.arange(6) % 4
MEAN = np.array([0.1, 0.2, 0.3])
K = np.array([[2.0, 0, 1.5], [0, 4, 1], [0, 0, 1]])


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


AWKWARD = {
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder("S")),
    "read-only": read_only,
    "columns first": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "long": lambda x: x.astype(np.longdouble) if x.dtype.kind == "f" else x,
    "array-like": lambda x: ArrayLike(x),
}


class ArrayLike:
    """Such as a column of a table."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array


BUILD: dict[str, Callable[[Callable], PointSet]] = {
    "from_points": lambda f: PointSet.from_points(f(XYZ), f(VALUES)),
    "from_pixels": lambda f: PointSet.from_pixels(f(VALUES), f(ROWS), f(COLS), (6, 4)),
    "from_rgbd": lambda f: PointSet.from_rgbd(IMAGE, f(DEPTH), f(K)),
    "from_image": lambda f: PointSet.from_image(f(IMAGE)),
    "mean and std": lambda f: PointSet.from_image(IMAGE, mean=f(MEAN), std=f(MEAN)),
    "subset": lambda f: PointSet.from_image(IMAGE).subset(f(ROWS)),
    "from_image with mask": lambda f: PointSet.from_image(IMAGE, f(MASK)),
    "from_rgbd with mask": lambda f: PointSet.from_rgbd(f(IMAGE), DEPTH, mask=f(MASK)),
}


@pytest.mark.parametrize(
    "build, kind",  # what looks like an array is no image
    [(b, k) for b in BUILD for k in AWKWARD if k != "array-like" or b in ("from_points", "from_pixels", "from_rgbd")],
)
def test_awkward_arrays_are_taken(build, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = BUILD[build](AWKWARD[kind]), BUILD[build](lambda x: x)
    assert torch.equal(found.pos, expected.pos) and torch.equal(found.feat, expected.feat)
    assert kind == "long" or (found.pos.dtype, found.feat.dtype) == (expected.pos.dtype, expected.feat.dtype)


def test_lists_are_what_numpy_makes_of_them():
    assert PointSet.from_points(XYZ.tolist()).pos.equal(torch.from_numpy(XYZ))
    assert as_tensor(np.ones(2, np.clongdouble)).dtype == torch.complex128


@pytest.mark.parametrize(
    "build, what",
    [
        (lambda: PointSet.from_points([[1.0, 2.0], [3.0]]), "from_points: xyz: expected numbers in a regular shape"),
        (lambda: PointSet.from_points(XYZ, [["a"]] * 6), "from_points: feat: expected numbers"),
        (lambda: PointSet.from_pixels(VALUES, ROWS, ["a"] * 6, (6, 4)), "from_pixels: cols: expected numbers"),
        (lambda: PointSet.from_points(XYZ).subset(["a"]), "subset: index: expected numbers"),
        (lambda: PointSet(torch.rand(2, 3), torch.rand(2, 1), [0, "a"]), "PointSet: ptr: expected numbers"),
    ],
)
def test_what_is_no_array_is_named(build, what):
    with pytest.raises(ValueError, match=what):
        build()


def test_what_is_read_only_stays_so():
    given = read_only(XYZ)
    PointSet.from_points(given).pos.zero_()
    assert np.array_equal(given, XYZ)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.array(["a"]), "expected numbers, got an array of <U1"),
        (np.array([None]), "expected numbers, got an array of object"),
        ([[1, 2], [3]], "expected numbers in a regular shape: "),
        ("text", "expected numbers in a regular shape: "),
        (np.ma.masked_less([1.0, 2.0], 1.5), "got a masked one; fill the masked values first"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        as_tensor(values)
    assert "\n" not in str(caught.value)


def test_tensors_and_plain_arrays_are_not_copied():
    tensor, array = torch.rand(3), np.random.default_rng(0).random(3)
    assert as_tensor(tensor) is tensor and np.shares_memory(as_tensor(array).numpy(), array)
    assert as_tensor([1.0, 2.0]).dtype == torch.float32


# ---- one rule for the range of features -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_unsigned_features_are_in_the_unit_range_everywhere(dtype):
    most = np.iinfo(dtype).max
    values = np.array([[0, most // 5, most], [most, 0, most // 5]], dtype=dtype)
    expected = torch.tensor([[0, 0.2, 1], [1, 0, 0.2]])
    image = values[:, None]  # (2, 1, 3)
    native = values.astype(values.dtype.newbyteorder("="))
    for points in (
        PointSet.from_points(np.zeros((2, 3)), values),
        PointSet.from_points(torch.zeros(2, 3), torch.from_numpy(native)),
        PointSet.from_pixels(values, [0, 1], [0, 0], (2, 1)),
        PointSet.from_image(image),
        PointSet.from_image(torch.from_numpy(native.T[..., None].copy())),
        PointSet.from_rgbd(image, np.ones((2, 1))),
    ):
        torch.testing.assert_close(points.feat, expected)
    if dtype == np.uint8:
        torch.testing.assert_close(PointSet.from_image(Image.fromarray(image)).feat, expected)


def test_floats_are_kept_and_other_integers_refused():
    values = np.array([[-3.0, 255.0, 1e6]])
    assert PointSet.from_points(np.zeros((1, 3)), values).feat.tolist() == values.tolist()
    for feat in (values.astype(np.int64), torch.from_numpy(values).int(), [[1, 2, 3]]):
        with pytest.raises(
            ValueError, match="from_points: pos and feat must be floating point, got .*int.*; only bytes"
        ):
            PointSet.from_points(np.zeros((1, 3)), feat)
