"""Checks of labeled clouds in HDF5 files, before any cloud is read."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
from jaxtyping import Int

from pointmix.io.colors import color_scale
from pointmix.io.validate import check_numbers, check_read


def check_file(file: h5py.File, path: str, features: str) -> tuple[Int[np.ndarray, " n"], int]:
    """The labels of a file and its number of points per cloud, after checking everything but the values."""
    wanted = ["data", "label"] + ([features] if features != "none" else [])
    for key in wanted:
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
    kinds = "fui" if features == "rgb" else "fu"
    if features != "none" and (file[features].shape != data.shape or file[features].dtype.kind not in kinds):
        found = file[features]
        raise ValueError(f"{path}: {features} must be {data.shape} numbers, got {found.shape} {found.dtype}")
    mask = check_numbers(f"{path}: mask", file["mask"]) if "mask" in file else None
    if mask is not None and mask.shape != data.shape[:2]:
        raise ValueError(f"{path}: mask must be {data.shape[:2]}, got {mask.shape}")
    if mask is not None:
        check_read(mask, mask.shape[1:], f"{path}: mask")
    try:
        return label[:].reshape(-1).astype(np.int64), data.shape[1]
    except OSError as error:
        raise ValueError(f"{path}: label cannot be read: {str(error).splitlines()[0]}") from error


def feature_scale(file: h5py.File, features: str) -> float:
    """The value that scales the features of a file to [0, 1]; 1 for features without a range, such as float normals."""
    if features == "none":
        return 1.0
    if features != "rgb" and file[features].dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        return 1.0
    try:
        return color_scale(file[features])
    except ValueError as error:
        raise ValueError(f"{file.filename}: {features}: {error}") from error


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
