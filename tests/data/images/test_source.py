"""Gray images of every depth, as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointmix.data.images.source import ImageSource, decode
from pointmix.io.errors import UnreadableSample


def decoded(image: Image.Image) -> list[int]:
    return np.asarray(decode(ImageSource([], np.zeros(1, int), lambda _: image.copy(), str), 0, "L"))[0].tolist()


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 255, 256, 65535]], ">u2"), [0, 0, 1, 255]),  # 16 bits: the upper byte
        (np.array([[0, 255, 256, 65535]], "<u2"), [0, 0, 1, 255]),
        (np.array([[0, 7, 200, 255]], np.int32), [0, 7, 200, 255]),  # 32 bits that hold 8
        (np.array([[-300, 0, 256, 65535, 70000]], np.int32), [0, 0, 1, 255, 255]),  # 32 bits that hold 16
        (np.array([[-3.0, 0.4, 254.6, 1e9]], np.float32), [0, 0, 255, 255]),
    ],
)
def test_wide_gray_values_become_bytes(values, expected):
    size = values.shape[::-1]
    big = values.dtype == np.dtype(">u2")
    image = Image.frombytes("I;16B", size, values.tobytes()) if big else Image.fromarray(values)
    assert decoded(image) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(UnreadableSample, match="holds NaN or infinite values"):
        decoded(Image.fromarray(np.array([[0.0, value]], np.float32)))
