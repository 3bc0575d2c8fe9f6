"""Labels of clouds in the files of the clouds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.hdf5_checks import class_names
from pointmix.data.clouds.listed import Place, numbered
from pointmix.data.splits import shortened
from pointmix.io import CloudFile, open_clouds
from pointmix.io.errors import UnreadableSample
from pointmix.io.names import LABEL_NAMES
from pointmix.utils.messages import one_line


def labeled_places(
    files: Sequence[Path], config: PointDataConfig, *, same_order: bool = False
) -> tuple[list[str], list[Place], Int64[np.ndarray, " N"]]:
    """Names of the classes, the clouds in some files, and the label of each cloud, see `pointmix.io.stored`.

    Labels are text, the names of the classes; or numbers of the names in the files' attribute `classes`
    (comma-separated), else of those in `data.classes`, else they are the names and must be 0 to the last without a gap.

    Args:
        config: its target_key is the name of the labels; label stands for all usual ones, see `LABEL_NAMES`.
        same_order: refuse an attribute `classes` unlike `data.classes`, as files of another split may have none.

    Raises:
        ValueError: if a file cannot be read or has not one label a cloud, a label is out of range, or files have
            labels of different kinds or state different classes, also than data.classes.
    """
    places: list[Place] = []
    labels: list[int | str] = []
    stated: list[str | None] = []
    for path in files:
        try:
            with open_clouds(path, keys=config.keys, columns=config.columns) as file:
                found = _labels(file, config.target_key)
                stated += [_stated(file)]
        except UnreadableSample as e:
            raise ValueError(f"cannot read the labels of {path}: {one_line(e).removeprefix(f'{path} ')}") from e
        labels += found
        places += numbered(path, len(found))
    where = str(files[0]) if len(files) == 1 else f"{files[0].parent} ({len(files)} files)"
    if len({type(label) for label in labels}) > 1:
        raise ValueError(f"{where}: the labels of some files are numbers, those of others are text")
    if isinstance(labels[0], str):
        names = sorted({str(label) for label in labels})
        place = {name: i for i, name in enumerate(names)}
        return names, places, np.array([place[str(label)] for label in labels], dtype=np.int64)
    if len(set(stated)) > 1:
        raise ValueError(f"{where}: the attribute classes differs between the files, expected the same names")
    targets = np.array(labels, dtype=np.int64)
    names_of = None if stated[0] is None else stated[0].split(",")
    if twice := sorted({name for name in names_of or () if (names_of or ()).count(name) > 1}):
        raise ValueError(f"{where}: the attribute classes names {shortened(twice)} twice, expected different names")
    if same_order and names_of and config.classes and names_of != list(config.classes):
        own, given = shortened(names_of), shortened(list(config.classes))
        raise ValueError(f"{where}: the attribute classes is {own} and data.classes {given}, expected the same names")
    return class_names(names_of or config.classes, targets, where), places, targets


def _labels(file: CloudFile, target_key: str) -> list[int] | list[str]:
    names = LABEL_NAMES if target_key == "label" else (target_key,)
    try:
        found = file.stored.labels(names)
    except (ValueError, OSError) as e:
        raise UnreadableSample(one_line(e)) from e
    if found is None:
        key = f"{', '.join(names[:3])} or the like" if target_key == "label" else target_key
        has = ", ".join([file.stored.key, *file.stored.keys(0)])
        raise UnreadableSample(f"it has none, expected one a cloud under {key} (data.target_key); it has {has}")
    return found


def _stated(file: CloudFile) -> str | None:
    joined = file.stored.attrs.get("classes")
    joined = joined.decode("utf-8", errors="replace") if isinstance(joined, bytes) else joined
    if not isinstance(joined, str | None):
        raise UnreadableSample("the attribute classes must be text, comma-separated names")
    return joined
