"""WebDataset shards (KEY.jpg beside KEY.cls in tar files), read in any order rather than streamed.

Streaming shuffles within a buffer, a worker at a time, so an epoch would depend on the number of workers. Shards on a
disk need none of that: their headers are scanned once, and an image is then a seek and a read.
"""

from __future__ import annotations

import io
import os
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pointmix.data.source import Source
from pointmix.messages import one_line
from pointmix.opening import open_image

MOST_DIGITS = 32  # of a label, with spaces
IMAGE_ENDS = ("jpg", "jpeg", "png", "webp")


def _scan(shard: Path) -> list[tuple[str, int, int, int]]:
    """(key, label, offset, size) of every image of a shard; bytes from the start of the file."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    with tarfile.open(shard, "r:") as tar:  # not compressed: images are found by their place in the file
        for member in tar:
            key, _, end = member.name.rpartition(".")
            wanted = end.lower() in IMAGE_ENDS or end == "cls"
            if wanted and (not member.isreg() or member.issparse()):  # a sparse file grows without bounds when read
                raise ValueError(f"{member.name} is not a plain file")
            if end.lower() in IMAGE_ENDS:
                images[key] = (member.offset_data, member.size)
            elif end == "cls":
                if member.size > MOST_DIGITS:
                    raise ValueError(f"{member.name} has {member.size} bytes, expected the number of a class")
                labels[key] = int(tar.extractfile(member).read())
    lost = sorted(images.keys() - labels.keys())
    if lost:
        raise ValueError(f"{lost[0]} has no label: expected {lost[0]}.cls beside the image")
    return [(key, labels[key], *place) for key, place in images.items()]


def _read(shards: list[str], shard: np.ndarray, place: np.ndarray, index: int) -> Image.Image:
    offset, size = place[index].tolist()
    with open(shards[shard[index]], "rb") as file:  # opened anew: a shared position would mix up the workers
        file.seek(offset)
        return open_image(io.BytesIO(file.read(size)))


def _name(shards: list[str], shard: np.ndarray, keys: list[str], index: int) -> str:
    return f"{shards[shard[index]]}:{keys[index]}"


def open_shards(root: str, split: str) -> Source:
    """All shards below ROOT with SPLIT in their path. Class names are the lines of ROOT/classes.txt, else the numbers.

    Raises:
        FileNotFoundError: when there is no such shard.
        ValueError: when one is damaged, or an image has no label.
    """
    shards = sorted(path for path in Path(root).rglob("*.tar") if split in path.relative_to(root).as_posix())
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
        raise ValueError(f"no image ({', '.join(IMAGE_ENDS)}) in {len(shards)} shards *{split}*.tar below {root}")
    keys, labels, offsets, sizes = zip(*rows, strict=True)
    targets, place = np.asarray(labels, dtype=np.int64), np.stack([offsets, sizes], axis=1)  # (N,), (N, 2)
    names = os.path.join(root, "classes.txt")
    classes = Path(names).read_text().splitlines() if os.path.exists(names) else list(map(str, range(max(labels) + 1)))
    if targets.min() < 0 or targets.max() >= len(classes):
        raise ValueError(f"{root} {split} has labels {min(labels)} to {max(labels)}, for {len(classes)} classes")
    paths, owners = [str(shard) for shard in shards], np.asarray(owner)
    return Source(classes, targets, partial(_read, paths, owners, place), partial(_name, paths, owners, list(keys)))
