"""Loaders of images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from pointmix.data.dataset import SourceDataset, collate
from pointmix.data.images.config import DataConfig, filled, is_partial, keep_range
from pointmix.data.images.mask_files import MASKED_MODES
from pointmix.data.images.normalize import ByteImage, ByteImages, join_bytes
from pointmix.data.images.partial import MaskedTransform, RandomMask
from pointmix.data.images.source import cached, decode
from pointmix.data.images.transforms import eval_transform, train_transform
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.data.source import Source
from pointmix.io.image_files import MODES


class ImageDataset(SourceDataset[Image.Image, ByteImage]):
    """Images of a part of a source; see `SourceDataset`.

    Args:
        mode: 'L' or 'RGB', or with masks 'LA' or 'RGBA'.
    """

    what = "images"

    def __init__(
        self,
        *,
        source: Source[Image.Image],
        indices: Int[np.ndarray, " n"],
        mode: str,
        transform: Callable[[Image.Image], ByteImage],
        seed: int | None,
    ) -> None:
        super().__init__(source=source, indices=indices, transform=transform, seed=seed)
        self.mode = mode

    def read(self, index: int) -> Image.Image:
        return decode(self.source, index, self.mode)


def image_loader(
    cfg: DataConfig,
    source: Source[Image.Image],
    indices: Int[np.ndarray, " n"],
    batches: EpochBatches | PartBatches,
    seed: int | None = None,
) -> BatchLoader[tuple[ByteImages, Tensor]]:
    """A loader over a part of a source; with a seed for training, else for evaluation."""
    mode = (MODES if cfg.mask_root is None else MASKED_MODES)[filled(cfg.in_chans)]
    transform = eval_transform(cfg) if seed is None else train_transform(cfg)
    if cfg.mask_root is not None:
        transform = MaskedTransform(transform.transforms, side=None if seed is None else cfg.img_size)
    elif is_partial(cfg):
        transform.transforms.append(
            RandomMask(keep_ratio=keep_range(cfg.keep_ratio), kind=cfg.mask, patch=cfg.mask_patch)
        )
    images = ImageDataset(
        source=cached(source, indices, mode) if cfg.cache else source,
        indices=indices,
        mode=mode,
        transform=transform,
        seed=seed,
    )
    return BatchLoader(
        dataset=images,
        batches=batches,
        workers=cfg.workers,
        strict=cfg.strict,
        collate=partial(collate, join=partial(join_bytes, mean=filled(cfg.mean), std=filled(cfg.std))),
    )
