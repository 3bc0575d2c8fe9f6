from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from pointmix.data.dataset import seed_all
from pointmix.data.images.config import DataConfig
from pointmix.data.images.normalize import join_bytes
from pointmix.data.images.resolve import resolve
from pointmix.data.images.transforms import auto_augment, eval_transform, train_transform

PLAIN = {"source": "folder", "hflip": 0.0, "color_jitter": 0.0}


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_evaluation_cuts_out_the_middle():
    image = noise(40, 60)
    out = eval_transform(resolve(DataConfig(**PLAIN, img_size=20, crop_pct=0.5)))(image)  # short side is 40 already
    middle = torch.from_numpy(np.array(image)[10:30, 20:40]).permute(2, 0, 1)
    assert out.pixels.dtype == torch.uint8 and torch.equal(out.pixels, middle)
    assert out.noise is None and out.mask is None


@pytest.mark.parametrize("settings", [{}, {"auto_augment": "rand-m9-mstd0.5-inc1", "reprob": 0.5, "vflip": 0.5}])
@pytest.mark.parametrize("remode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_pixels_and_draws_are_those_of_timm(in_chans, remode, settings):
    cfg = resolve(DataConfig(source="folder", img_size=24, in_chans=in_chans, remode=remode, **settings))
    same = {"mean": cfg.mean, "std": cfg.std}
    train = {"hflip": 0.5, "color_jitter": 0.4, "auto_augment": cfg.auto_augment, "vflip": cfg.vflip}
    train |= {"scale": cfg.scale, "ratio": cfg.ratio, "re_prob": cfg.reprob, "re_mode": remode, "is_training": True}
    pairs = [
        (train_transform(cfg), create_transform(24, interpolation="random", **same, **train)),
        (eval_transform(cfg), create_transform(24, interpolation="bicubic", crop_pct=0.9, **same)),
    ]
    image = noise(40, 31).convert("L" if in_chans == 1 else "RGB")
    for ours, theirs in pairs:
        seed_all(1)
        images, after = [ours(image) for _ in range(12)], torch.rand(1)
        seed_all(1)
        expected = torch.stack([theirs(image) for _ in range(12)])
        assert after == torch.rand(1)  # what is drawn next is the same too
        found = join_bytes(images, **same).to("cpu")
        assert found.dtype == torch.float32 and (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("policy", ["rand-m10-n8", "rand-m10-n8-inc1-mstd0.5", "augmix-m5-w3", "v0", "original"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_policies_at_full_strength_run(policy, in_chans):
    cfg = DataConfig(**PLAIN, img_size=12, in_chans=in_chans, auto_augment=policy, reprob=0.5, pad_crop=1)
    transform, image = train_transform(resolve(cfg)), noise(12, 12).convert("L" if in_chans == 1 else "RGB")
    for i in range(40):
        seed_all(0, 0, i)
        assert transform(image).pixels.shape == (in_chans, 12, 12)


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
    assert torch.equal(mirrored(image).pixels, plain(flipped).pixels)
    assert all((erased(image).noise == 0).all() for _ in range(5)) and plain(image).noise is None
