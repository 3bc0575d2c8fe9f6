"""WebDataset shards (KEY.jpg beside KEY.cls in tar files), read in any order rather than streamed.

Files of one sample have the same path up to the first dot of the name; hidden files are skipped.

Streaming shuffles within a buffer of each worker, so an epoch would depend on the number of workers. For shards on a
disk there is no need: their headers are scanned once, and an image is then read by its offset.
"""

from __future__ import annotations

import io
import os
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pointmix.data.images.config import DataConfig
from pointmix.data.images.source import ImageSource, register_source
from pointmix.data.paths import is_junk, read_lines
from pointmix.io.formats.pillow import open_image
from pointmix.utils.limits import regular_file
from pointmix.utils.messages import counted, one_line

MAX_LABEL_BYTES = 32
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


def _scan(shard: Path) -> list[tuple[str, int, int, int]]:
    """(key, label, offset, size) of every image of a shard; bytes from the start of the file."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}  # key -> suffix -> offset, size
    labels: dict[str, int] = {}
    with tarfile.open(regular_file(shard), "r:") as tar:  # uncompressed: images are read by their offset
        for member in tar:
            if is_junk(member.name):
                continue
            folder, slash, name = member.name.rpartition("/")
            start, _, end = name.partition(".")
            key, end = folder + slash + start, end.lower()
            wanted = end.rpartition(".")[2] in (*IMAGE_SUFFIXES, "cls")
            if wanted and (not member.isreg() or member.issparse()):  # a sparse file expands without bounds when read
                raise ValueError(f"{member.name} is not a plain file")
            if not member.isfile():
                continue
            sample = samples.setdefault(key, {})
            if end in sample:
                raise ValueError(f"{member.name} occurs twice, expected a unique key for each sample")
            sample[end] = member.offset_data, member.size
            if end == "cls":
                if member.size > MAX_LABEL_BYTES:
                    raise ValueError(f"{member.name} has {member.size} bytes, expected the number of a class")
                content = tar.extractfile(member)
                labels[key] = _label(member.name, content.read() if content else b"")
    images = {key: place for key, sample in samples.items() if (place := _image(key, sample)) is not None}
    if lost := sorted(images.keys() - labels.keys()):
        raise ValueError(f"{lost[0]} has no label: expected {lost[0]}.cls beside the image")
    if lost := sorted(labels.keys() - images.keys()):
        raise ValueError(f"{lost[0]} has no image: expected one such as {lost[0]}.jpg beside the label")
    return [(key, labels[key], *place) for key, place in images.items()]


def _image(key: str, sample: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """Offset and size of the image of a sample: KEY.jpg and the like, else KEY.ANYTHING.jpg."""
    found = [end for end in sample if end.rpartition(".")[2] in IMAGE_SUFFIXES]
    plain = [end for end in found if "." not in end]
    if len(plain or found) > 1:
        raise ValueError(
            f"{key} has {len(plain or found)} images ({', '.join((plain or found)[:3])}), expected one; "
            "a key ends at the first dot"
        )
    return sample[(plain or found)[0]] if found else None


def _label(name: str, content: bytes) -> int:
    try:
        return int(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{name} holds {content[:20]!r}, expected a number") from error


def _read(shards: list[str], shard: np.ndarray, place: np.ndarray, index: int) -> Image.Image:
    offset, size = place[index].tolist()
    with open(shards[shard[index]], "rb") as file:  # opened for each read: workers must not share a file position
        file.seek(offset)
        return open_image(io.BytesIO(file.read(size)))


def _name(shards: list[str], shard: np.ndarray, keys: list[str], index: int) -> str:
    return f"{shards[shard[index]]}:{keys[index]}"


def open_shards(root: str, split: str) -> ImageSource:
    """All shards below ROOT with SPLIT in their path. Class names are the lines of ROOT/classes.txt, else the numbers.

    Raises:
        FileNotFoundError: if there is no such shard.
        ValueError: if one is damaged or has a name twice, or a sample has no label, or not exactly one image.
    """
    relative = {path: path.relative_to(root) for path in Path(root).rglob("*.tar")}
    shards = sorted(path for path, name in relative.items() if split in name.as_posix() and not is_junk(name))
    if not root or not shards:
        raise FileNotFoundError(f"no *{split}*.tar below data.root {root!r}")
    rows, owner = [], []
    for number, shard in enumerate(shards):
        try:
            found = _scan(shard)
        except (tarfile.TarError, ValueError, OSError) as error:
            raise ValueError(f"cannot read shard {shard}: {one_line(error)}") from error
        rows += found
        owner += [number] * len(found)
    if not rows:
        raise ValueError(f"no image ({', '.join(IMAGE_SUFFIXES)}) in {len(shards)} shards *{split}*.tar below {root}")
    keys, labels, offsets, sizes = zip(*rows, strict=True)
    targets, place = np.asarray(labels, dtype=np.int64), np.stack([offsets, sizes], axis=1)  # (N,), (N, 2)
    names = os.path.join(root, "classes.txt")
    classes = read_lines(names) if os.path.exists(names) else list(map(str, range(max(labels) + 1)))
    if targets.min() < 0 or targets.max() >= len(classes):
        raise ValueError(
            f"{root} {split} has labels {min(labels)} to {max(labels)}, for {counted(len(classes), 'class')}"
        )
    paths, owners = [str(shard) for shard in shards], np.asarray(owner)
    return ImageSource(
        classes, targets, partial(_read, paths, owners, place), partial(_name, paths, owners, list(keys))
    )


@register_source("wds/NAME", uses=())
def open_wds(config: DataConfig, split: str | None) -> ImageSource:
    """The shards of a split below `config.root`; the test split is "validation"."""
    return open_shards(config.root or "", split or "validation")
