"""Bytes from the workers, normalized on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing

from pointmix.data.dataset import seed_all
from pointmix.data.images import normalize
from pointmix.data.images.config import DataConfig
from pointmix.data.images.normalize import ByteImage, Erase, join_bytes, to_bytes
from pointmix.data.images.splits import build_data

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def values(batch: int, channels: int = 3, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8)


def normalized(pixels: torch.Tensor, channels: int = 3) -> torch.Tensor:
    mean, std = (torch.tensor(v[:channels])[:, None, None] for v in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3)])
def test_bytes_of_an_image(mode, channels):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)).convert(mode)
    pixels = to_bytes(image).pixels
    assert pixels.shape == (channels, 5, 7) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert torch.equal(pixels.permute(1, 2, 0), torch.from_numpy(np.array(image)).view(5, 7, channels))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_byte_to_float32_rounding(device, channels):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, channels, 1, 1)
    out = join_bytes([ByteImage(p) for p in pixels], mean=MEAN[:channels], std=STD[:channels]).to(device)
    assert out.dtype == torch.float32 and out.is_contiguous() and out.device.type == device
    assert (out.cpu() - normalized(pixels, channels)).abs().max() <= 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erasing_is_that_of_timm(device, mode):
    pixels, ours = values(20), Erase(probability=0.7, mode=mode)
    theirs = RandomErasing(0.7, mode=mode, device="cpu")
    seed_all(3)
    images, after = [ours(ByteImage(p)) for p in pixels], torch.rand(1)
    seed_all(3)
    expected = theirs(normalized(pixels))
    assert after == torch.rand(1)
    batch = join_bytes(images, mean=MEAN, std=STD)
    out = batch.to(device).cpu()
    assert 5 < len(batch.boxes) < 20 and (out - expected).abs().max() <= 1e-6
    for i, top, left, height, width in batch.boxes:
        inside = (i, slice(None), slice(top, top + height), slice(left, left + width))
        assert torch.equal(out[inside], expected[inside])


@pytest.mark.parametrize("device", DEVICES)
def test_masks_become_a_channel_and_hide_what_is_erased_too(device):
    pixels, masks = values(2), torch.rand(2, 16, 16) < 0.5
    noise = torch.full((3, 4, 5), 9.0)
    images = [ByteImage(pixels[0], (2, 3), noise, masks[0]), ByteImage(pixels[1], mask=masks[1])]
    out = join_bytes(images, mean=MEAN, std=STD).to(device).cpu()
    expected = normalized(pixels)
    expected[0, :, 2:6, 3:8] = 9
    assert out.shape == (2, 4, 16, 16) and torch.equal(out[:, 3], masks.float())
    assert (out[:, :3] - expected * masks[:, None]).abs().max() <= 1e-6


def test_few_bytes_are_sent_and_the_constants_once():
    pixels = values(8)
    batch = join_bytes([ByteImage(p) for p in pixels], mean=MEAN, std=STD)
    assert batch.nbytes == 8 * 3 * 16 * 16
    noise = torch.zeros(3, 2, 5)
    some = join_bytes([ByteImage(pixels[0], (0, 0), noise), ByteImage(pixels[1])], mean=MEAN, std=STD)
    assert some.nbytes == 2 * 3 * 16 * 16 + 4 * noise.numel()
    batch.to("cpu")
    before = normalize._scale_and_shift.cache_info().misses
    assert torch.equal(batch.to("cpu"), batch.to(torch.device("cpu")))
    assert normalize._scale_and_shift.cache_info().misses == before


@pytest.mark.parametrize("settings", [{"reprob": 0.5}, {"reprob": 0.5, "keep_ratio": 0.5}])
def test_workers_send_the_same_bytes(folder, settings):
    cfg = {"source": "folder", "root": str(folder), "img_size": 16, "val_fraction": 0, **settings}
    call = {"batch_size": 10, "eval_batch_size": 10, "seed": 0}
    here, there = (list(build_data(DataConfig(**cfg, workers=w), **call).train) for w in (0, 1))
    for (a, _), (b, _) in zip(here, there, strict=True):
        assert a.pixels.dtype == torch.uint8 and a.pixels.is_contiguous() and b.pixels.is_contiguous()
        assert a.boxes == b.boxes and a.boxes and torch.equal(a.noise, b.noise)
        assert torch.equal(a.to("cpu"), b.to("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_memory():
    images = [ByteImage(p, (1, 1), torch.ones(3, 2, 2), torch.ones(16, 16, dtype=torch.bool)) for p in values(2)]
    batch = join_bytes(images, mean=MEAN, std=STD)
    pinned = batch.pin_memory()
    assert all(t.is_pinned() for t in (pinned.pixels, pinned.noise, pinned.mask))
    assert torch.equal(pinned.to("cuda", non_blocking=True), batch.to("cuda"))
