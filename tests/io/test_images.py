from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.io.images import as_channels_last, as_mask

BYTES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 15


def test_tensor_is_channels_first_and_array_channels_last():
    values = torch.rand(3, 4, 5)
    assert torch.equal(as_channels_last(values), values.permute(1, 2, 0))
    assert torch.equal(as_channels_last(values.permute(1, 2, 0).numpy()), values.permute(1, 2, 0))


@pytest.mark.parametrize("shape", [(4, 40, 3), (31, 40, 3), (64, 31, 3), (64, 64, 1), (64, 64, 2), (3, 224, 224)])
def test_images_may_be_narrow_or_have_many_channels(shape):
    assert as_channels_last(torch.rand(shape)).shape == (*shape[1:], shape[0])


def test_two_sides_make_one_channel():
    values = torch.rand(4, 5)
    assert torch.equal(as_channels_last(values), values[..., None])
    assert torch.equal(as_channels_last(values.numpy()), values[..., None])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_unsigned_integers_become_floats_up_to_one(dtype):
    most = np.iinfo(dtype).max
    array = np.array([[0, most // 5, most]], dtype=dtype)
    for image in (array, torch.from_numpy(array)):
        values = as_channels_last(image)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.flatten(), torch.tensor([0, 0.2, 1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floats_are_kept(dtype):
    image = torch.tensor([[-3.0, 300.0]], dtype=dtype)
    values = as_channels_last(image)
    assert values.dtype == dtype and torch.equal(values.flatten(), image.flatten())


@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3), ("RGBA", 4), ("P", 3), ("1", 1)])
def test_pil_modes(mode, channels):
    image = Image.fromarray(BYTES).convert(mode)
    values = as_channels_last(image)
    assert values.shape == (2, 3, channels)
    expected = np.asarray(image.convert("RGB") if mode == "P" else image, dtype=np.float32) / (
        1 if mode == "1" else 255
    )
    torch.testing.assert_close(values, torch.from_numpy(expected).view(2, 3, channels))


def test_pil_16_bit():
    array = np.array([[0, 65535], [13107, 1]], dtype=np.uint16)
    values = as_channels_last(Image.fromarray(array))
    torch.testing.assert_close(values[..., 0], torch.tensor([[0, 1], [0.2, 1 / 65535]]))


def test_pil_big_endian_and_palette_with_alpha():
    array = np.array([[0, 65535], [13107, 1]], dtype=">u2")
    image = Image.frombytes("I;16B", (2, 2), array.tobytes())
    torch.testing.assert_close(as_channels_last(image)[..., 0], torch.tensor([[0, 1], [0.2, 1 / 65535]]))
    colors = Image.fromarray(BYTES)
    assert as_channels_last(colors.convert("P").convert("PA")).shape[-1] == 4  # colors and alpha, not palette numbers


def test_arrays_need_not_be_contiguous_or_writable():
    flipped = BYTES[:, ::-1]
    flipped.flags.writeable = False
    torch.testing.assert_close(as_channels_last(flipped), as_channels_last(BYTES).flip(1))


def test_mean_and_std_per_channel_or_for_all():
    image = torch.rand(3, 2, 2)
    expected = (image - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([2.0, 4.0, 8.0]).view(3, 1, 1)
    torch.testing.assert_close(as_channels_last(image, mean=(0.1, 0.2, 0.3), std=(2, 4, 8)).movedim(-1, 0), expected)
    torch.testing.assert_close(as_channels_last(image, mean=(0.5,)).movedim(-1, 0), image - 0.5)
    torch.testing.assert_close(as_channels_last(image, std=(0.5,)).movedim(-1, 0), image * 2)


@pytest.mark.parametrize(
    "image, kwargs, message",
    [
        ([[1, 2]], {}, "expected a tensor, an array or a PIL image, got list"),
        (torch.rand(1, 2, 3, 4), {}, r"two sides and channels, got shape \(1, 2, 3, 4\)"),
        (np.zeros((1, 2, 3, 4), np.float32), {}, r"two sides and channels, got shape"),
        (torch.rand(5), {}, r"two sides and channels, got shape \(5,\)"),
        (np.zeros(5, np.float32), {}, "two sides and channels"),
        (torch.rand(224, 224, 3), {}, r"\(224, 224, 3\) looks like H x W x C, expected C x H x W: permute its axes"),
        (torch.rand(32, 40, 4), {}, "looks like H x W x C"),
        (torch.rand(3, 0, 4), {}, r"two sides and channels, got shape \(3, 0, 4\)"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), {}, "bytes, 16-bit integers or floats, got torch.int64"),
        (np.zeros((2, 2, 3), complex), {}, "bytes, 16-bit integers or floats, got torch.complex128"),
        (torch.rand(3, 2, 2), dict(mean=(0.5, 0.5)), "mean has 2 values for 3 channels"),
        (torch.rand(1, 2, 2), dict(std=(1, 1, 1)), "std has 3 values for 1 channels"),
    ],
)
def test_bad_images_are_named(image, kwargs, message):
    with pytest.raises(ValueError, match=message):
        as_channels_last(image, **kwargs)


MASK = torch.tensor([[True, False, False], [False, True, True]])


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK[None],
        MASK.long() * 7,
        MASK.to(torch.uint8),
        MASK * -0.5,
        MASK.numpy(),
        MASK.numpy().astype(np.uint8) * 255,
        MASK.numpy()[..., None],
        Image.fromarray(MASK.numpy().astype(np.uint8) * 255),
        Image.fromarray(MASK.numpy()),
        torch.stack([MASK, torch.zeros_like(MASK), MASK]),
    ],
    ids=["bool", "1HW", "int64", "uint8", "negative", "numpy", "numpy bytes", "HW1", "pil L", "pil 1", "channels"],
)
def test_mask_is_true_where_nonzero(mask):
    visible = as_mask(mask, (2, 3))
    assert visible.dtype == torch.bool and torch.equal(visible, MASK)


def test_mask_may_be_an_integer_array():
    assert torch.equal(as_mask(MASK.numpy().astype(np.int64), (2, 3)), MASK)


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.ones(3, 2), r"mask is 3x2, the image is 2x3"),
        (torch.zeros(2, 3), "mask hides every pixel"),
        (torch.tensor([[1.0, 0, 0], [0, float("nan"), 0]]), "mask holds NaN"),
        ("mask.png", "got str"),
    ],
)
def test_bad_masks_are_named(mask, message):
    with pytest.raises(ValueError, match=message):
        as_mask(mask, (2, 3))
