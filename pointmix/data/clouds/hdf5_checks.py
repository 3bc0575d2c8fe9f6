"""Checks of labeled clouds in HDF5 files, before any cloud is read."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
from jaxtyping import Int

from pointmix.io.validate import check_numbers, check_read


def check_file(file: h5py.File, path: str, features: Sequence[str]) -> tuple[Int[np.ndarray, " n"], int]:
    """The labels of a file and its number of points per cloud, after checking everything but the values."""
    for key in ("data", "label", *features):
        if key not in file:
            raise ValueError(f"{path} has no key {key!r}; it has {', '.join(sorted(file)) or 'none'}")
        if not isinstance(file[key], h5py.Dataset):
            raise ValueError(f"{path}: {key} is a group, expected an array")
        shape = file[key].shape or ()
        check_read(file[key], shape if key == "label" else shape[1:], f"{path}: {key}")
    data, label = file["data"], file["label"]
    if data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape or data.dtype.kind != "f":
        raise ValueError(f"{path}: data must be (n, N, 3) floating point, got {data.shape} {data.dtype}")
    if label.shape not in ((len(data),), (len(data), 1)) or label.dtype.kind not in "iu":
        raise ValueError(f"{path}: label must be ({len(data)},) integers, got {label.shape} {label.dtype}")
    for key in features:
        found = file[key]
        if found.shape[:2] != data.shape[:2] or found.ndim > 3 or found.dtype.kind not in "fuib":
            number, points = data.shape[:2]
            what = f"({number}, {points}) or ({number}, {points}, C) numbers"
            raise ValueError(f"{path}: {key} must be {what}, got {found.shape} {found.dtype}")
    mask = check_numbers(f"{path}: mask", file["mask"]) if "mask" in file else None
    if mask is not None and mask.shape != data.shape[:2]:
        raise ValueError(f"{path}: mask must be {data.shape[:2]}, got {mask.shape}")
    if mask is not None:
        check_read(mask, mask.shape[1:], f"{path}: mask")
    try:
        return label[:].reshape(-1).astype(np.int64), data.shape[1]
    except OSError as error:
        raise ValueError(f"{path}: label cannot be read: {str(error).splitlines()[0]}") from error


def class_names(classes: Sequence[str] | None, targets: Int[np.ndarray, " n"], where: str) -> list[str]:
    low, high = int(targets.min()), int(targets.max())
    if classes is None:
        if not np.array_equal(np.unique(targets), np.arange(high + 1)):
            raise ValueError(
                f"{where}: labels {np.unique(targets).tolist()} are not 0 to {high} without a gap; give the classes"
            )
        return [str(label) for label in range(high + 1)]
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise ValueError(f"{where}: label {wrong} is out of range, expected 0 to {len(classes) - 1}")
    return list(classes)
