"""Image files and the mask files of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pointmix.data.paths import files_below
from pointmix.data.splits import shortened
from pointmix.io.image_files import is_image

Pair = tuple[Path, Path]  # an image file and its mask file


def find_images(folder: Path) -> Mapping[str, Path]:
    """Image files below a folder by their relative path without suffix, sorted; hidden files and other junk skipped.

    Raises:
        ValueError: if two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in filter(is_image, files_below(folder)):
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"{found[key]} and {path} differ only in their suffix, expected one of them")
        found[key] = path
    return found


def paired(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Pair]:
    """Images and masks of the same key.

    Raises:
        ValueError: naming the images without a mask, or the masks without an image.
    """
    for what, other, lost in (
        ("image", "mask", [str(images[key]) for key in images if key not in masks]),
        ("mask", "image", [str(masks[key]) for key in masks if key not in images]),
    ):
        if lost:
            raise ValueError(f"{len(lost)} {what} files have no {other}: {shortened(lost)}")
    return [(images[key], masks[key]) for key in images]
