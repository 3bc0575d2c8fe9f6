"""Image folders, tar files and the sets that timm and torchvision read by index, as sources."""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointmix.data.images.shards import open_shards
from pointmix.data.images.source import Source
from pointmix.data.names import is_litter
from pointmix.io.open_image import open_image
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import one_line

TEST_NAMES = ("val", "validation", "test")  # tried in this order
STREAMS = ("tfds", "hfids")


def _read_path(samples: list[tuple[str, int]], index: int) -> Image.Image:
    return open_image(samples[index][0])


def _name_path(samples: list[tuple[str, int]], index: int) -> str:
    return samples[index][0]


def _read_stream(reader: Any, index: int) -> Image.Image:
    return open_image(reader[index][0])


def _name_stream(reader: Any, index: int) -> str:
    return str(reader.filename(index) or index)


def _read_pair(dataset: Any, index: int) -> Image.Image:
    return dataset[index][0]


def _name_pair(dataset: Any, index: int) -> str:
    return f"{type(dataset).__name__}[{index}]"


def open_folder(folder: str | Path) -> Source:
    """An image folder FOLDER/CLASS/**/image.jpg; a class is a folder right below FOLDER.

    Hidden files and folders, and what else is no data (see `names.LITTER`), are passed over; folders that would have
    been classes are named in a warning.

    Raises:
        FileNotFoundError: when FOLDER does not exist.
        ValueError: when it holds no class folder, or one without any image.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    class Folder(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            return classes, {name: label for label, name in enumerate(classes)}

    def is_image(path: str) -> bool:
        return path.lower().endswith(IMG_EXTENSIONS) and not is_litter(path[len(str(folder)) :])

    if not os.path.isdir(folder):
        raise FileNotFoundError(f"no folder {folder}; expected {folder}/CLASS/*.jpg")
    below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    classes = [name for name in below if not is_litter(name)]
    if not classes:
        raise ValueError(f"{folder} has no class folders; expected {folder}/CLASS/*.jpg")
    if len(classes) < len(below):
        ignored = _listed([name for name in below if is_litter(name)])
        warnings.warn(f"{folder}: {ignored} passed over, no class", stacklevel=2)
    files = Folder(str(folder), is_valid_file=is_image, allow_empty=True)
    counts = np.bincount(files.targets, minlength=len(files.classes)) if files.targets else np.zeros(len(files.classes))
    empty = [name for name, count in zip(files.classes, counts, strict=True) if not count]
    if empty:
        kinds = " ".join(IMG_EXTENSIONS)
        raise ValueError(f"no image in class folder {_listed(empty)} of {folder}; expected files ending in {kinds}")
    targets = np.asarray(files.targets, dtype=np.int64)
    return Source(files.classes, targets, partial(_read_path, files.samples), partial(_name_path, files.samples))


def open_tar(path: str | Path) -> Source:
    """Images in a tar file with class folders, or in a folder with one tar file a class.

    Raises:
        ValueError: when a file is no tar file or holds no image.
    """
    from timm.data.readers.reader_image_in_tar import ReaderImageInTar

    try:
        for tar in Path(path).glob("*.tar") if Path(path).is_dir() else [path]:
            regular_file(tar)
        # An open tar file must not be shared by workers. The cache of what is in it would be a pickle in the data's
        # folder, which anybody may have put there.
        reader = ReaderImageInTar(str(path), cache_tarfiles=False, cache_tarinfo=False)
    except Exception as error:  # of a damaged file: many kinds
        raise ValueError(f"cannot read images from {path}: {one_line(str(error)) or 'no image in it'}") from error
    for member in (info for sample in reader.samples for info in sample[::2] if info is not None):
        if member.issparse():  # it grows without bounds when it is read
            raise ValueError(f"cannot read images from {path}: {one_line(member.path)} is not a plain file")
    classes = sorted(reader.class_name_to_idx, key=reader.class_name_to_idx.get)
    kept = [i for i, (member, *_) in enumerate(reader.samples) if not is_litter(member.path)]
    if not kept:
        raise ValueError(f"cannot read images from {path}: no image in it")
    reader.samples = reader.samples[kept]
    used, targets = np.unique(reader.targets[kept], return_inverse=True)  # a class may be hidden, too
    if len(used) < len(classes):
        ignored = _listed(sorted(set(classes) - {classes[label] for label in used}))
        warnings.warn(f"{path}: {ignored} passed over, no class", stacklevel=2)
    classes = [classes[label] for label in used]
    return Source(classes, targets.astype(np.int64), partial(_read_stream, reader), partial(_name_stream, reader))


def open_local(root: str, split: str | None) -> Source:
    """A split below ROOT: a folder of classes, a folder of tar files, or SPLIT.tar. None takes the first of TEST_NAMES.

    Raises:
        FileNotFoundError: when ROOT or the split does not exist.
    """
    if not root:
        raise ValueError("data.root is not set; expected a folder with train/CLASS/*.jpg and val/CLASS/*.jpg")
    if not os.path.isdir(root):
        raise FileNotFoundError(f"data.root: no folder {root}; expected one with train/CLASS/*.jpg and val/CLASS/*.jpg")
    names = (split,) if split else TEST_NAMES
    for name in names:
        path = Path(root, name)
        if path.is_dir():
            tars = [tar for tar in path.glob("*.tar") if not is_litter(tar.name)]
            return open_tar(path) if tars else open_folder(path)
        if path.with_name(name + ".tar").is_file():
            return open_tar(path.with_name(name + ".tar"))
    there = _listed(sorted(e.name for e in os.scandir(root) if not is_litter(e.name))) or "nothing"
    raise FileNotFoundError(f"{root} has no {' or '.join(names)} (nor .tar); it has {there}")


def open_reader(*, name: str, root: str | None, split: str, input_key: str, target_key: str, download: bool) -> Source:
    """A set of timm's 'hfds/NAME' (Hugging Face) or 'torch/NAME' (torchvision).

    Raises:
        ValueError: for another prefix, or a set without class labels.
        ImportError: when 'datasets' is not installed.
    """
    from timm.data import create_dataset

    prefix = name.partition("/")[0]
    if prefix in STREAMS:
        raise ValueError(
            f"data.source {name!r} can only be streamed, so runs could not be resumed exactly; "
            "use hfds/NAME, wds/NAME, torch/NAME or an image folder"
        )
    if prefix == "torch":
        if not root:
            raise ValueError(f"data.root is not set; expected the folder where torchvision keeps {name!r}")
        try:
            dataset = create_dataset(name, root=root, split=split, download=download)
        except (RuntimeError, AssertionError) as error:  # not downloaded yet; or a name that timm does not know
            raise ValueError(f"data.source {name!r}: {error} (data.download true fetches a known set)") from error
        if hasattr(dataset, "loader"):  # of files; torchvision's own lets them choose any decoder
            dataset.loader = open_image
        targets = np.asarray([int(t) for t in dataset.targets], dtype=np.int64)
        return Source(list(dataset.classes), targets, partial(_read_pair, dataset), partial(_name_pair, dataset))
    if prefix != "hfds":
        raise ValueError(f"data.source {name!r} is unknown; expected digits, folder, wds/NAME, hfds/NAME or torch/NAME")
    library = importlib.util.find_spec("datasets")
    if library is None or library.origin is None:  # no origin: any folder of that name in the working directory
        raise ImportError(f"data.source {name!r} needs Hugging Face's library: pip install datasets")
    reader = create_dataset(name, root=root, split=split, input_key=input_key, target_key=target_key).reader
    column = reader.dataset.with_format("numpy").select_columns(target_key)
    targets = np.asarray(column[:][target_key], dtype=np.int64)
    names = sorted(reader.class_to_idx, key=reader.class_to_idx.get) or [str(c) for c in range(int(targets.max()) + 1)]
    if targets.min(initial=0) < 0:
        raise ValueError(f"split {split!r} of {name!r} has no labels (column {target_key!r} holds {targets.min()})")
    return Source(names, targets, partial(_read_stream, reader), partial(_name_stream, reader))


def open_source(
    *, name: str, root: str | None, split: str | None, input_key: str, target_key: str, download: bool
) -> Source:
    """Whatever NAME says, at one split; split None means the test split under its usual name."""
    if name in ("", "folder"):
        return open_local(root or "", split)
    if name.partition("/")[0] == "wds":
        return open_shards(root or "", split or "validation")
    return open_reader(
        name=name, root=root, split=split or "validation", input_key=input_key, target_key=target_key, download=download
    )


def check_same_classes(train: list[str], other: list[str], split: str) -> None:
    """Refuse a split whose classes are not those of train.

    Raises:
        ValueError: naming the classes that only one of the two has.
    """
    if train == other:
        return
    missing, extra = sorted(set(train) - set(other)), sorted(set(other) - set(train))
    parts = [f"{_listed(missing)} only in train"] * bool(missing) + [f"{_listed(extra)} only in {split}"] * bool(extra)
    raise ValueError(f"train and {split} have different classes: {'; '.join(parts) or 'in another order'}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
