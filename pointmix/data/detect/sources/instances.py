"""Folders of images and masks that number the objects of an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pointmix.data.detect import masks as rle
from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.sample import ObjectImage, Objects
from pointmix.data.detect.source import register_detect_source
from pointmix.data.images.mask_values import read_values
from pointmix.data.images.pairs import Pair, find_images, paired
from pointmix.data.paths import existing
from pointmix.io.errors import BadMask
from pointmix.io.formats.pillow import open_image
from pointmix.io.image_files import MODES, decode, read_size

TEST_FRACTION = 0.2
HINT = " that number the objects, 0 for none"


@dataclass(frozen=True)
class NumberedFiles:
    """A `pointmix.data.detect.source.DetectSource` of image files with masks of numbered objects.

    Args:
        pairs: the files.
        root: folder of the images.
        mode: Pillow's mode that images are converted to, "L" or "RGB".
        classes: the one class of all objects.
    """

    pairs: Sequence[Pair]
    root: Path
    mode: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...] = (1,)
    has_masks: bool = True

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return str(self.pairs[index][0])

    def size(self, index: int) -> tuple[int, int]:
        return read_size(self.pairs[index][0])

    def has_objects(self, index: int) -> bool:
        return True

    def read(self, index: int) -> ObjectImage:
        """An image and its objects.

        Raises:
            UnreadableSample: if the image or the mask is damaged.
            BadMask: if the mask has another size or several channels, or holds negative numbers.
        """
        image_path, mask_path = self.pairs[index]
        image = decode(partial(open_image, image_path), self.mode)
        numbers = read_values(mask_path, (image.height, image.width), colors=False, hint=HINT)
        if numbers.min() < 0:
            raise BadMask(f"mask {mask_path} holds {numbers.min()}, expected numbers of objects from 1, 0 for none")
        found, masks = rle.from_numbers(numbers)
        objects = Objects(
            rle.boxes(masks),
            np.zeros(len(found), dtype=np.int64),
            np.zeros(len(found), dtype=bool),
            rle.area(masks),
            masks,
        )
        return ObjectImage(image, objects, image_path.relative_to(self.root).with_suffix("").as_posix())


def check_instances(config: DetectDataConfig) -> None:
    """Raise ValueError for several classes."""
    if config.classes is not None and len(config.classes) != 1:
        raise ValueError(f"data.classes {', '.join(config.classes)}: objects of source instances are of one class")


@register_detect_source("instances", check=check_instances, uses=("root", "classes", "test_fraction"))
def open_instances(config: DetectDataConfig, split: str) -> NumberedFiles | None:
    """ROOT/images/**/NAME.png and ROOT/masks/**/NAME.png, in which 0 is no object and every other number one object.
    Where there are folders images/train and images/test (and perhaps images/val), with the same below masks, they are
    the splits. Otherwise `data.test_fraction` of the images are held back as the test split, those whose names have the
    smallest SHA-256, so that it is the same wherever the files are.

    Raises:
        FileNotFoundError, ValueError: if folders are missing, there is no image, or an image has no mask.
    """
    root = existing(config.root, "images", "masks")
    images, masks = root / "images", root / "masks"
    own = (images / "train").is_dir() and (images / "test").is_dir()
    if own and config.test_fraction is not None:
        raise ValueError(f"data.test_fraction is set, but {images} has the folders train and test; leave it out")
    if split == "val" and not (own and (images / "val").is_dir()):
        return None
    if own:
        pairs = paired(find_images(images / split), find_images(masks / split))
    else:
        pairs = _part(paired(find_images(images), find_images(masks)), split, config.test_fraction, root=images)
    if not pairs:
        raise ValueError(f"{images} has no image for {split}, expected some")
    return NumberedFiles(pairs, images, MODES[config.in_chans or 3], config.classes or ("object",))


def _part(pairs: list[Pair], split: str, fraction: float | None, *, root: Path) -> list[Pair]:
    """The pairs that are held back for "test", or the others."""

    def key(pair: Pair) -> str:
        name = pair[0].relative_to(root).with_suffix("").as_posix()
        return hashlib.sha256(os.fsencode(name)).hexdigest()

    count = round((TEST_FRACTION if fraction is None else fraction) * len(pairs))
    held_back = {pair[0] for pair in sorted(pairs, key=key)[:count]}
    return [pair for pair in pairs if (pair[0] in held_back) == (split == "test")]
