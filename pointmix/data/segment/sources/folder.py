"""Folders of images and masks with the same names, or lists of pairs."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

from pointmix.data.images.pairs import Pair, find_images, paired
from pointmix.data.paths import existing, is_junk, read_lines
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.image_files import ImageFiles, labeled_files, listed_classes
from pointmix.data.segment.source import register_segment_source
from pointmix.data.splits import shortened

SPLITS = {"train": ("train", "training"), "val": ("val", "validation"), "test": ("test", "testing")}
MASK_FOLDERS = ("masks", "annotations", "labels")
LAYOUT = "images/train with masks/train and so on, or lists such as train.txt with `IMAGE MASK` a line"


@register_segment_source("folder", kind="image")
def open_folder(config: SegmentDataConfig, split: str) -> ImageFiles | None:
    """ROOT/images/SPLIT/**/NAME.jpg and ROOT/masks/SPLIT/**/NAME.png ("annotations" and "labels" are other names for
    "masks"), or ROOT/SPLIT.txt with an image and a mask a line, relative to ROOT, with a tab or a comma between them
    where names have spaces. Class names are the lines of
    ROOT/classes.txt, unless `data.classes` or `data.palette_file` name them. Where there is no test split, "val" is the
    test split.

    Raises:
        FileNotFoundError: if the folder, the split or a listed file does not exist.
        ValueError: if an image has no mask or the reverse, a name occurs twice, a list has an image of another split,
            or classes are not known.
    """
    root = existing(config.root)
    if not root.is_dir():
        raise FileNotFoundError(f"data.root: no folder {root}; expected one with {LAYOUT}")
    opened = _pairs(root, split)
    if split == "val" and _pairs(root, "test") is None:
        return None
    if split == "test" and opened is None:
        opened = _pairs(root, "val")
    if opened is None:
        if split == "val":
            return None
        there = shortened(sorted(entry.name for entry in os.scandir(root) if not is_junk(entry.name))) or "nothing"
        raise FileNotFoundError(f"data.root {root} has no {split} split: it has {there}; expected {LAYOUT}")
    if any((root / f"{name}.txt").is_file() for names in SPLITS.values() for name in names):
        _check_lists(root)
    return labeled_files(config, opened, classes=listed_classes(config, root))


def _check_lists(root: Path) -> None:
    """Refuse an image in two splits, which only lists make possible."""
    images = {split: {os.path.realpath(image) for image, _ in _pairs(root, split) or ()} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        if shared := images[one] & images[other]:
            raise ValueError(f"{min(shared)} is in both {one} and {other} (and {len(shared) - 1} more)")


def _pairs(root: Path, split: str) -> list[Pair] | None:
    """The files of a split, None if there is no such split."""
    for name in SPLITS[split]:
        if (root / f"{name}.txt").is_file():
            return _listed(root, root / f"{name}.txt")
        for masks in MASK_FOLDERS:
            if (root / "images" / name).is_dir() and (root / masks / name).is_dir():
                return paired(find_images(root / "images" / name), find_images(root / masks / name))
    return None


def _listed(root: Path, path: Path) -> list[Pair]:
    """The pairs in a list file: two paths a line, separated by a tab, a comma or spaces."""
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        separator = next((mark for mark in "\t," if mark in line), None)
        words = [word.strip() for word in line.split(separator)]
        if len(words) != 2 or not all(words):
            expected = "an image and a mask, with a tab or a comma between them where names have spaces"
            raise ValueError(f"{path}, line {number}: {line[:80]!r}; expected {expected}")
        image, mask = root / words[0], root / words[1]
        for file in (image, mask):
            if not file.is_file():
                raise FileNotFoundError(f"{path}, line {number}: no file {file}")
        pairs.append((image, mask))
    if not pairs:
        raise ValueError(f"{path} is empty, expected an image and a mask a line")
    if len({os.path.realpath(image) for image, _ in pairs}) < len(pairs):
        raise ValueError(f"{path} names an image twice, expected each once")
    return pairs
