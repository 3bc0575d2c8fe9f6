"""Image folders, images with a CSV file of labels, and tar files with class folders."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from pointmix.data.class_folders import class_files
from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source
from pointmix.data.label_csv import LabelTable, find_csv, read_labels
from pointmix.data.paths import is_junk
from pointmix.data.splits import shortened
from pointmix.io.formats.pillow import open_image
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

TEST_NAMES = ("val", "validation", "test")  # tried in this order


def _read_path(paths: list[str], index: int) -> Image.Image:
    return open_image(paths[index])


@runtime_checkable
class Reader(Protocol):
    """What is used of timm's readers."""

    def __getitem__(self, index: int) -> tuple[BufferedIOBase, int]: ...

    def filename(self, index: int) -> str | None: ...


def read_member(reader: Reader, index: int) -> Image.Image:
    return open_image(reader[index][0])


def name_member(reader: Reader, index: int) -> str:
    return str(reader.filename(index) or index)


def open_folder(folder: str | Path) -> ImageSource:
    """An image folder FOLDER/CLASS/**/image.jpg; a class is a folder right below FOLDER.

    Raises:
        FileNotFoundError, ValueError: see `pointmix.data.class_folders.class_files`.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    classes, files, targets = class_files(
        Path(folder),
        is_sample=lambda path: path.name.lower().endswith(IMG_EXTENSIONS),
        what="image",
        suffixes=IMG_EXTENSIONS,
    )
    paths = list(map(str, files))
    return ImageSource(classes, targets, partial(_read_path, paths), paths.__getitem__)


def open_csv(table: LabelTable, split: str | None, *, seed: int) -> ImageSource:
    """The images of a split of a CSV file; arguments and errors as `LabelTable.part`."""
    chosen = table.part(split, seed=seed)
    paths = [str(table.files[i]) for i in chosen]
    return ImageSource(table.classes, table.targets[chosen], partial(_read_path, paths), paths.__getitem__)


def open_tar(path: str | Path) -> ImageSource:
    """Images in a tar file with class folders, or in a folder with one tar file per class.

    Raises:
        ValueError: if a file is not a tar file or holds no image.
    """
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    try:
        for tar in Path(path).glob("*.tar") if Path(path).is_dir() else [path]:
            regular_file(tar)
        # Workers must not share an open tar file. The cache of its members would be a pickle in the data folder, which
        # anybody may have put there.
        reader = ReaderImageInTar(str(path), cache_tarfiles=False, cache_tarinfo=False)
    except Exception as error:  # of a damaged file: many kinds
        raise ValueError(f"cannot read images from {path}: {one_line(str(error)) or 'no image in it'}") from error
    for member in (info for sample in reader.samples for info in sample[::2] if info is not None):
        if member.issparse():  # it expands without bounds when read
            raise ValueError(f"cannot read images from {path}: {one_line(member.path)} is not a plain file")
    classes = sorted(reader.class_name_to_idx, key=reader.class_name_to_idx.get)
    kept = [i for i, (member, *_) in enumerate(reader.samples) if not is_junk(member.path)]
    if not kept:
        raise ValueError(f"cannot read images from {path}: no image in it")
    reader.samples = reader.samples[kept]
    used, targets = np.unique(reader.targets[kept], return_inverse=True)  # a class folder may be hidden
    if len(used) < len(classes):
        ignored = shortened(sorted(set(classes) - {classes[label] for label in used}))
        warnings.warn(f"{path}: {ignored} skipped, not a class", stacklevel=2)
    classes = [classes[label] for label in used]
    return ImageSource(classes, targets.astype(np.int64), partial(read_member, reader), partial(name_member, reader))


def open_local(root: str, split: str | None) -> ImageSource:
    """A split below ROOT: a folder of classes, a folder of tar files, or SPLIT.tar. None takes the first of TEST_NAMES.

    Raises:
        FileNotFoundError: if ROOT or the split does not exist.
    """
    if not root:
        raise ValueError("data.root is not set; expected a folder with train/CLASS/*.jpg and val/CLASS/*.jpg")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"data.root: no folder {root}; expected one with train/CLASS/*.jpg and val/CLASS/*.jpg")
    names = (split,) if split else TEST_NAMES
    for name in names:
        path = Path(root, name)
        if path.is_dir():
            tars = [tar for tar in path.glob("*.tar") if not is_junk(tar.name)]
            return open_tar(path) if tars else open_folder(path)
        if path.with_name(name + ".tar").is_file():
            return open_tar(path.with_name(name + ".tar"))
    there = shortened(sorted(e.name for e in os.scandir(root) if not is_junk(e.name))) or "nothing"
    raise FileNotFoundError(f"{root} has no {' or '.join(names)} (nor .tar); it has {there}")


def _has_classes(split: Path) -> bool:
    """Whether a split is a tar file, or a folder with class folders or tar files."""
    inside = [entry for entry in os.scandir(split) if not is_junk(entry.name)] if split.is_dir() else []
    packed = split.with_name(split.name + ".tar").is_file()
    return packed or any(entry.is_dir() or entry.name.endswith(".tar") for entry in inside)


@register_source("folder", uses=("labels", "input_key", "target_key"))
def open_folder_split(config: DataConfig, split: str | None) -> ImageSource:
    """A split below `config.root`: of `config.labels`, or of labels.csv or data.csv where the training split has no
    class folders; else see `open_local`.

    Where there is a split test and one for validation, None is test, and the other one is `val_split`, unless
    `config.test_split` names it.
    """
    root = Path(config.root or "")
    path = root / config.labels if config.labels else find_csv(root) if config.root else None
    if path is None or (not config.labels and _has_classes(root / config.train_split)):
        val = _validation(root)
        source = open_local(config.root or "", split or (None if val is None else "test"))
    else:
        table = read_labels(path, file_key=config.input_key, label_key=config.target_key)
        val = "val" if {"val", "test"} <= set(table.splits or ()) else None
        source = open_csv(table, split, seed=config.split_seed)
    return source if config.test_split not in (None, "test") else replace(source, val_split=val)


def _validation(root: Path) -> str | None:
    """The folder or tar file for validation, where there is one for test, too; of ImageNet's test images the classes
    are not known."""
    names = [name for name in TEST_NAMES if _has_classes(root / name)]
    return names[0] if len(names) > 1 and "test" in names else None
