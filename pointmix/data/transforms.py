"""Pillow image -> normalized tensor, by timm's transforms; small images are shifted by padding instead of resized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.transforms import str_to_interp_mode
from torchvision import transforms

if TYPE_CHECKING:
    from pointmix.data.images import DataConfig


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the upper bits of every value, none to all 8 of them."""
    return image.point(lambda value: 0) if bits < 1 else ImageOps.posterize(image, min(bits, 8))


# At full strength timm's policies keep 0 bits, which newer Pillow refuses; older Pillow gave black, as here.
auto_augment.NAME_TO_OP.update({name: _posterize for name in auto_augment.NAME_TO_OP if name.startswith("Posterize")})


def train_transform(cfg: DataConfig) -> transforms.Compose:
    """Augmentation for training, float32 (C, img_size, img_size); all settings must be filled in."""
    crop, secondary, final = create_transform(
        cfg.img_size,
        is_training=True,
        scale=cfg.scale,
        ratio=cfg.ratio,
        hflip=cfg.hflip,
        vflip=cfg.vflip,
        color_jitter=cfg.color_jitter or None,
        auto_augment=cfg.auto_augment,
        interpolation=cfg.train_interpolation,
        mean=cfg.mean,
        std=cfg.std,
        re_prob=cfg.reprob,
        re_mode=cfg.remode,
        separate=True,
    )
    steps = list(crop.transforms)
    if cfg.pad_crop:
        resize = transforms.Resize(cfg.img_size, str_to_interp_mode(cfg.interpolation))  # none at the right size
        steps[0:1] = [resize, transforms.RandomCrop(cfg.img_size, padding=cfg.pad_crop)]
    return transforms.Compose(steps + secondary.transforms + final.transforms)


def eval_transform(cfg: DataConfig) -> transforms.Compose:
    """Resize the short side to img_size / crop_pct and cut out the middle, float32 (C, img_size, img_size)."""
    return create_transform(
        cfg.img_size, crop_pct=cfg.crop_pct, interpolation=cfg.interpolation, mean=cfg.mean, std=cfg.std
    )
