"""From a configuration to timm's transforms of Pillow images to bytes."""

from __future__ import annotations

from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.transforms import str_to_interp_mode
from torchvision import transforms

from pointmix.data.images.config import DataConfig, filled
from pointmix.data.images.normalize import Erase, to_bytes
from pointmix.io.errors import UnreadableSample
from pointmix.utils.limits import TooLarge, check_limit


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the upper 0 to 8 bits of every value."""
    return image.point(lambda value: 0) if bits < 1 else ImageOps.posterize(image, min(bits, 8))


# At full strength timm's policies keep 0 bits, which newer Pillow refuses; older Pillow returned black, as here.
auto_augment.NAME_TO_OP.update({name: _posterize for name in auto_augment.NAME_TO_OP if name.startswith("Posterize")})


class Resize(transforms.Resize):
    """Resizes the short side; refuses elongated images that would exceed the limit IMAGE_PIXELS."""

    def forward(self, img: Image.Image) -> Image.Image:
        short, long = sorted(img.size)
        pixels = self.size * (self.size * long // short)
        what = f"the image of {img.width} x {img.height}, {self.size} on its short side,"
        try:
            check_limit("IMAGE_PIXELS", pixels, what)
        except TooLarge as e:
            raise UnreadableSample(str(e)) from e
        return super().forward(img)


def train_transform(cfg: DataConfig) -> transforms.Compose:
    """Augmentation for training, to a ByteImage (C, img_size, img_size); all settings must be filled in."""
    crop, secondary, _ = create_transform(
        filled(cfg.img_size),
        is_training=True,
        scale=cfg.scale,
        ratio=cfg.ratio,
        hflip=filled(cfg.hflip),
        vflip=cfg.vflip,
        color_jitter=cfg.color_jitter or None,  # type: ignore[arg-type]  # timm takes None for off
        auto_augment=cfg.auto_augment,
        interpolation=cfg.train_interpolation,
        mean=filled(cfg.mean),  # fill color of translations and rotations
        separate=True,
    )
    steps = list(crop.transforms)
    if cfg.pad_crop:
        resize = Resize(cfg.img_size, str_to_interp_mode(cfg.interpolation))  # a no-op at the right size
        steps[0:1] = [resize, transforms.RandomCrop(cfg.img_size, padding=cfg.pad_crop)]
    erase = [Erase(probability=cfg.reprob, mode=cfg.remode)] if cfg.reprob else []
    return transforms.Compose([*steps, *secondary.transforms, to_bytes, *erase])


def eval_transform(cfg: DataConfig) -> transforms.Compose:
    """Resize the short side to img_size / crop_pct and crop the center, to a ByteImage (C, img_size, img_size)."""
    steps = create_transform(filled(cfg.img_size), crop_pct=cfg.crop_pct, interpolation=cfg.interpolation).transforms
    resize = Resize(steps[0].size, steps[0].interpolation)
    return transforms.Compose([resize, steps[1], to_bytes])  # without timm's conversion to a normalized tensor
