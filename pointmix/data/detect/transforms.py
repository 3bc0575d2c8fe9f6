"""From an image with objects to what the network takes: augmentation in training, resizing alone in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.objects import Augmented, cut, flip, paste, trained_on
from pointmix.data.detect.sample import ObjectImage, Target, Truth
from pointmix.data.images.config import filled, keep_range
from pointmix.data.images.crops import Crop, random_crop, resized
from pointmix.data.images.partial import random_mask
from pointmix.data.images.photometric import PhotometricDistortion
from pointmix.io.image_files import MODES

TRIES = 10  # other crops, drawn in search of one with an object


class DetectItem(NamedTuple):
    """An image of a batch.

    Args:
        image: normalized.
        visible: its pixels that are not hidden; None for all.
        target, truth: see `DetectBatch`.
    """

    image: Float[Tensor, "C h w"]
    visible: Bool[Tensor, "h w"] | None
    target: Target | None = None
    truth: Truth | None = None


def fitted(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """Rows and columns of an image resized so that its short side is `short_side`, or its long side `max_side` if it
    would be longer."""
    scale = min(short_side / min(size), max_side / max(size))
    rows, cols = (max(1, int(side * scale + 0.5)) for side in size)
    return rows, cols


@dataclass(frozen=True)
class Pixels:
    """Normalizes colors and hides pixels; settings as in `DetectDataConfig`, all filled in."""

    cfg: DetectDataConfig

    def bytes_of(self, image: Image.Image) -> UInt8[Tensor, "C H W"]:
        mode = MODES[filled(self.cfg.in_chans)]
        return F.pil_to_tensor(image if image.mode == mode else image.convert(mode))

    def item(self, image: Float[Tensor, "C h w"]) -> DetectItem:
        """The item of an image with values in [0, 1]; random masks are drawn from torch's global generator."""
        cfg = self.cfg
        visible, keep = None, keep_range(cfg.keep_ratio)
        if keep != (1, 1):
            size = (image.shape[1], image.shape[2])
            visible = random_mask(size, keep_ratio=keep, kind=cfg.mask, patch=cfg.mask_patch)
        return DetectItem(F.normalize(image, list(filled(cfg.mean)), list(filled(cfg.std))), visible)


@dataclass(frozen=True)
class TrainTransform:
    """Random size or large-scale jitter, flip, copy-paste and colors.

    Args:
        cfg: with every setting filled in.
        masks: whether targets have masks.
    """

    cfg: DetectDataConfig
    masks: bool

    def __call__(self, sample: ObjectImage, other: ObjectImage | None = None) -> DetectItem:
        """The item of an image, with objects of `other` pasted in if there is one."""
        image, objects = self._moved(sample)
        if other is not None:
            image, objects = paste(image, objects, *self._moved(other))
        colors = image.float() / 255
        if self.cfg.photometric:
            colors = PhotometricDistortion()(colors)
        return Pixels(self.cfg).item(colors)._replace(target=objects.target())

    def _moved(self, sample: ObjectImage) -> tuple[UInt8[Tensor, "C h w"], Augmented]:
        """The image at a random size, perhaps cropped and flipped, and its objects."""
        size = (sample.image.height, sample.image.width)
        given = trained_on(sample.objects, size, masks=self.masks)
        crop = self._crop(size)
        objects = cut(given, crop, size)
        for _ in range(TRIES if self.cfg.jitter_scale is not None and not self.cfg.keep_empty else 0):
            if len(objects.labels) or not len(given.labels):
                break
            crop = self._crop(size)
            objects = cut(given, crop, size)
        image = resized(crop.of(Pixels(self.cfg).bytes_of(sample.image)), crop.rows, crop.cols)
        if float(torch.rand(())) < filled(self.cfg.hflip):
            image, objects = F.horizontal_flip(image), flip(objects, (crop.rows, crop.cols))
        return image, objects

    def _crop(self, size: tuple[int, int]) -> Crop:
        cfg = self.cfg
        if cfg.jitter_scale is not None and cfg.crop_size is not None:
            (low, high), (rows, cols) = cfg.jitter_scale, cfg.crop_size
            scale = (low + (high - low) * float(torch.rand(()))) * min(rows / size[0], cols / size[1])
            return random_crop(size, (rows, cols), scale)
        sides = cfg.train_short_sides or (filled(cfg.short_side),)
        side = sides[int(torch.randint(len(sides), ()))]
        return Crop(0, 0, *size, *fitted(size, side, filled(cfg.max_side)))


@dataclass(frozen=True)
class EvalTransform:
    """Resizing alone.

    Args:
        cfg: with every setting filled in.
        masks: whether the truth has masks.
    """

    cfg: DetectDataConfig
    masks: bool = False

    def image(self, image: Image.Image) -> DetectItem:
        """The item of an image whose objects are not known."""
        pixels = Pixels(self.cfg)
        size = fitted((image.height, image.width), filled(self.cfg.short_side), filled(self.cfg.max_side))
        return pixels.item(resized(pixels.bytes_of(image), *size).float() / 255)

    def __call__(self, sample: ObjectImage, name: str) -> DetectItem:
        """The item of an image of a source.

        Args:
            name: see `Truth`.
        """
        objects = sample.objects if self.masks else sample.objects.without_masks()
        truth = Truth(sample.image_id, name, (sample.image.height, sample.image.width), objects)
        return self.image(sample.image)._replace(truth=truth)
