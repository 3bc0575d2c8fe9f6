"""From a labeled image to points with labels: augmentation in training, the whole image in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from pointmix.data.images.config import filled, keep_range
from pointmix.data.images.partial import random_mask
from pointmix.data.images.photometric import PhotometricDistortion
from pointmix.data.segment.images.config import ImageSettings
from pointmix.data.segment.images.crops import Maps, cut, varied_crop
from pointmix.data.segment.sample import IGNORE, LabeledImage, SegmentBatch
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.io.image_files import MODES
from pointmix.pointset import PointSet

Number = TypeVar("Number", int, float)


def train_transform(cfg: ImageSettings) -> Callable[[LabeledImage], SegmentBatch]:
    """Random scale, crop, flip and colors; all settings must be filled in.

    The transform makes one set of every image: a `Grid` of `crop_size`, or a `SparseGrid` of its visible pixels, with
    normalized colors, then the depth. Pixels beyond the image are zero, and their label is `IGNORE`; on a sparse grid
    they are absent.
    """
    return TrainTransform(
        in_chans=filled(cfg.in_chans),
        points=_points_settings(cfg),
        short_side=cfg.short_side,
        crop_size=_pair(filled(cfg.crop_size)),
        scale_range=_pair(filled(cfg.scale_range)),
        cat_max_ratio=filled(cfg.cat_max_ratio),
        hflip=filled(cfg.hflip),
        photometric=filled(cfg.photometric),
    )


def eval_transform(cfg: ImageSettings) -> Callable[[LabeledImage], SegmentBatch]:
    """The whole image at its own size, as `train_transform` makes points of it; resizing is the inference's task."""
    return EvalTransform(in_chans=filled(cfg.in_chans), points=_points_settings(cfg))


@dataclass(frozen=True)
class PointsSettings:
    """How an image becomes points; see `ImageSettings`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    depth_mean: float
    depth_std: float
    lattice: bool
    keep_ratio: tuple[float, float]
    mask: str
    mask_patch: int


@dataclass(frozen=True)
class TrainTransform:
    """See `train_transform`."""

    in_chans: int
    points: PointsSettings
    short_side: int | None
    crop_size: tuple[int, int]
    scale_range: tuple[float, float]
    cat_max_ratio: float
    hflip: float
    photometric: bool

    def __call__(self, sample: LabeledImage) -> SegmentBatch:
        maps = as_maps(sample, self.in_chans)
        _, label, depth = maps
        low, high = self.scale_range
        scale = low + (high - low) * float(torch.rand(()))
        if self.short_side is not None:
            scale *= self.short_side / min(label.shape)
        needed = depth > 0 if self.points.lattice and depth is not None and (depth > 0).any() else None
        crop = varied_crop(label, self.crop_size, scale, cat_max_ratio=self.cat_max_ratio, needed=needed)
        image, label, depth = cut(maps, crop)
        if float(torch.rand(())) < self.hflip:
            image, label = F.horizontal_flip(image), F.horizontal_flip(label)
            depth = None if depth is None else F.horizontal_flip(depth)
        image = as_floats(image)
        if self.photometric:
            image = PhotometricDistortion()(image)
        return as_points(image, label, depth, size=self.crop_size, settings=self.points)


@dataclass(frozen=True)
class EvalTransform:
    """See `eval_transform`."""

    in_chans: int
    points: PointsSettings

    def __call__(self, sample: LabeledImage) -> SegmentBatch:
        image, label, depth = as_maps(sample, self.in_chans)
        size = (label.shape[0], label.shape[1])
        return as_points(as_floats(image), label, depth, size=size, settings=self.points)


def as_maps(sample: LabeledImage, in_chans: int) -> Maps:
    """The image as bytes (C, H, W), its labels and its depth, as tensors that `torchvision.transforms.v2` knows.

    Raises:
        BadMask: if labels or depth have another size than the image.
    """
    image, size = sample.image, (sample.image.height, sample.image.width)
    for what, values in (("labels", sample.label), ("depth", sample.depth)):
        if values is not None and values.shape != size:
            shape = "x".join(map(str, values.shape))
            raise BadMask(f"{what} are {shape}, the image is {size[0]}x{size[1]} (rows x columns)")
    mode = MODES[in_chans]
    pixels = F.pil_to_tensor(image if image.mode == mode else image.convert(mode))
    label = torch.from_numpy(sample.label.astype(np.int64))
    depth = None if sample.depth is None else tv_tensors.Mask(torch.from_numpy(sample.depth.astype(np.float32)))
    return tv_tensors.Image(pixels), tv_tensors.Mask(label), depth


def as_floats(image: tv_tensors.Image) -> Float[Tensor, "C H W"]:
    """Bytes as numbers in [0, 1]."""
    return image.as_subclass(Tensor).float() / 255


def as_points(
    image: Float[Tensor, "C h w"],
    label: Int64[Tensor, "h w"],
    depth: Float[Tensor, "h w"] | None,
    *,
    size: tuple[int, int],
    settings: PointsSettings,
) -> SegmentBatch:
    """One set of an image's pixels and their labels, row by row, on a lattice of `size` (H, W), whose first rows and
    columns the image fills; random masks are drawn from torch's global generator.

    Args:
        image: values in [0, 1].
        depth: meters, 0 where there is none.

    Raises:
        UnreadableSample: if pixels without depth are left out and no pixel is left.
    """
    feat = F.normalize(image, list(settings.mean), list(settings.std))
    visible = None
    if depth is not None:
        depth = depth.as_subclass(Tensor)
        scaled = torch.where(depth > 0, (depth - settings.depth_mean) / settings.depth_std, 0)
        feat = torch.cat([feat, scaled[None]])
        visible = depth > 0 if settings.lattice else None
    if settings.keep_ratio != (1, 1):
        visible = _kept(visible, (label.shape[0], label.shape[1]), settings)
    if visible is not None and not visible.any():
        raise UnreadableSample("no pixel has a depth, expected one at least")
    below_right = (0, size[1] - label.shape[1], 0, size[0] - label.shape[0])
    feat = pad(feat, below_right)
    label = pad(label.as_subclass(Tensor), below_right, value=IGNORE)
    if visible is None:
        return SegmentBatch(PointSet.from_batch(feat[None]), label.flatten())
    visible = pad(visible, below_right)
    return SegmentBatch(PointSet.from_image(feat, visible), label[visible])


def _kept(visible: Bool[Tensor, "h w"] | None, size: tuple[int, int], settings: PointsSettings) -> Bool[Tensor, "h w"]:
    """The visible pixels under a random mask, or all of them if the mask would hide every one."""
    mask = random_mask(size, keep_ratio=settings.keep_ratio, kind=settings.mask, patch=settings.mask_patch)
    if visible is None:
        return mask
    both = mask & visible
    return both if both.any() else visible


def _points_settings(cfg: ImageSettings) -> PointsSettings:
    return PointsSettings(
        mean=tuple(filled(cfg.mean)),
        std=tuple(filled(cfg.std)),
        depth_mean=cfg.depth_mean,
        depth_std=cfg.depth_std,
        lattice=cfg.rgbd == "lattice",
        keep_ratio=keep_range(cfg.keep_ratio),
        mask=cfg.mask,
        mask_patch=cfg.mask_patch,
    )


def _pair(values: Sequence[Number]) -> tuple[Number, Number]:
    return values[0], values[1]  # a list, if read back from JSON
