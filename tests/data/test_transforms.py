from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from pointmix.data.images import DataConfig, resolve
from pointmix.data.loader import seed_all
from pointmix.data.transforms import auto_augment, eval_transform, train_transform

PLAIN = {"source": "folder", "mean": (0.0,), "std": (1.0,), "hflip": 0.0, "color_jitter": 0.0}


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_evaluation_cuts_out_the_middle():
    image = noise(40, 60)
    out = eval_transform(resolve(DataConfig(**PLAIN, img_size=20, crop_pct=0.5)))(image)  # short side is 40 already
    middle = torch.from_numpy(np.array(image)[10:30, 20:40]).permute(2, 0, 1) / 255
    assert torch.equal(out, middle)


def test_normalization_is_per_channel():
    cfg = resolve(DataConfig(**{**PLAIN, "mean": (0.1, 0.2, 0.3), "std": (0.5, 1.0, 2.0)}, img_size=8, crop_pct=1.0))
    plain = dataclasses.replace(cfg, mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = (eval_transform(plain)(noise(8, 8)) - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor(
        [0.5, 1.0, 2.0]
    )[:, None, None]
    assert torch.allclose(eval_transform(cfg)(noise(8, 8)), expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["rand-m10-n8", "rand-m10-n8-inc1-mstd0.5", "augmix-m5-w3", "v0", "original"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_policies_at_full_strength_run(policy, in_chans):
    cfg = DataConfig(**PLAIN, img_size=12, in_chans=in_chans, auto_augment=policy, reprob=0.5, pad_crop=1)
    transform, image = train_transform(resolve(cfg)), noise(12, 12).convert("L" if in_chans == 1 else "RGB")
    for i in range(40):
        seed_all(0, 0, i)
        assert transform(image).shape == (in_chans, 12, 12)


def test_posterize_keeps_the_upper_bits():
    image = noise(8, 8)
    for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
        for bits in range(9):
            out = np.asarray(auto_augment.NAME_TO_OP[name](image, bits))
            assert np.array_equal(out, np.asarray(image) & (0xFF00 >> bits & 0xFF))


def test_probabilities_reach_timm():
    image, flipped = noise(8, 8), noise(8, 8).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    settings = {**PLAIN, "img_size": 8, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    plain = train_transform(resolve(DataConfig(**settings)))
    mirrored = train_transform(resolve(DataConfig(**{**settings, "hflip": 1.0})))
    erased = train_transform(resolve(DataConfig(**settings, reprob=1.0, remode="const")))
    assert torch.equal(mirrored(image), plain(flipped))
    zeros = [int((erased(image).abs().sum(0) == 0).sum()) for _ in range(5)]
    assert min(zeros) >= 1 and int((plain(image).abs().sum(0) == 0).sum()) == 0
