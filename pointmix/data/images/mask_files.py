"""Masks in files, as alpha channels of the images of a source."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from pointmix.data.images.source import ImageSource, decode
from pointmix.data.source import Source
from pointmix.io.errors import BadMask
from pointmix.io.image_files import read_mask

MASKED_MODES = {1: "LA", 3: "RGBA"}  # channels -> Pillow's mode with a mask


def put_mask(image: Image.Image, mask: Bool[Tensor, "H W"]) -> Image.Image:
    """The gray or RGB image with the mask as its alpha channel."""
    image = image.copy()
    image.putalpha(Image.fromarray(mask.numpy().astype(np.uint8) * 255))
    return image


def _read_masked(source: Source[Image.Image], files: list[str | None], mode: str, index: int) -> Image.Image:
    image, file = decode(source, index, mode), files[index]
    if file is None:
        return image  # whole: conversion adds an alpha channel of 255
    try:
        return put_mask(image, read_mask(file, (image.height, image.width)))
    except (ValueError, OSError) as e:
        raise BadMask(str(e)) from e


def with_masks(
    source: Source[Image.Image], *, root: str | None, mask_root: str, mode: str, strict: bool
) -> ImageSource:
    """A source with the masks in MASK_ROOT/SPLIT/CLASS/NAME.png as alpha channel; images without a mask file are whole.

    Args:
        source: image files below `root`.
        mode: 'L' or 'RGB', mode of the images without masks.
        strict: every image must have a mask.

    Raises:
        FileNotFoundError: if there is no folder `mask_root`, no image has a mask, or with strict, one has none.
        ValueError: if the images are not files below `root`.
    """
    if not os.path.isdir(mask_root):
        raise FileNotFoundError(f"data.mask_root: no folder {mask_root}; expected masks such as SPLIT/CLASS/NAME.png")
    names = [Path(source.name(i)) for i in range(len(source.targets))]
    if not root or not names[0].is_relative_to(root):
        raise ValueError(
            f"data.mask_root needs images that are files below data.root (data.source folder), not {names[0]}"
        )
    paths = [name.relative_to(root) for name in names]
    files = [str(Path(mask_root, path).with_suffix(".png")) for path in paths]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing and (strict or len(missing) == len(files)):
        why = "data.strict requires a mask for every image" if strict else "expected the images' own paths"
        raise FileNotFoundError(f"{len(missing)} of {len(files)} images have no mask; no file {missing[0]} ({why})")
    absent = set(missing)
    found = [None if file in absent else file for file in files]
    val_split = getattr(source, "val_split", None)
    read = partial(_read_masked, source, found, mode)
    return ImageSource(source.classes, source.targets, read, source.name, val_split)
