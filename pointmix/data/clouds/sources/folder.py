"""Clouds in files of any kind, of one cloud or many: in class folders, with a CSV file of labels, or with labels in the
files."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pointmix.data.class_folders import class_files
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.file_labels import labeled_places
from pointmix.data.clouds.listed import ListedClouds, places_in
from pointmix.data.clouds.source import register_source, require_root
from pointmix.data.label_csv import find_csv, read_labels
from pointmix.data.paths import is_junk
from pointmix.data.splits import shortened
from pointmix.io import is_cloud
from pointmix.io.registry import CLOUD_READERS, MANY_CLOUDS
from pointmix.utils.messages import counted

LAYOUTS = {  # source -> what lies in its folder
    "scanobjectnn": ("main_split*/*_objectdataset*.h5", "h5_files/main_split*/*_objectdataset*.h5"),
    "modelnet40": ("ply_data_*.h5", "modelnet40_ply_hdf5_2048/*.h5", "train_files.txt"),
}
SUFFIXES = [".ply", *sorted(set(CLOUD_READERS) - {".ply"})]
DEFAULTS = {"sampling": "random", "normalize": "unit_sphere"}


def source_of(root: str) -> str:
    """The source that reads a folder: that of a known layout, else folder."""
    found = (name for name, patterns in LAYOUTS.items() if any(any(Path(root).glob(p)) for p in patterns))
    return next(found, "folder")


def csv_of(config: PointDataConfig) -> Path | None:
    """The CSV file of labels, or None for class folders."""
    root = Path(config.root or "")
    if config.labels is not None:
        return root / config.labels
    return None if (root / "train").is_dir() else find_csv(root)


def labeled_files(root: Path, split: str) -> list[Path]:
    """The files of a split that hold clouds and their labels: those in a folder SPLIT without class folders, or
    ROOT/SPLIT.SUFFIX, of a kind that may hold many clouds."""
    folder = root / split
    if not folder.is_dir():
        beside = (path for path in root.glob(f"{split}.*") if path.stem == split and not path.is_dir())
        return sorted(path for path in beside if path.suffix.lower() in MANY_CLOUDS)
    entries = [Path(entry.path) for entry in os.scandir(folder) if not is_junk(entry.name)]
    if any(entry.is_dir() for entry in entries):
        return []
    return sorted(entry for entry in entries if entry.suffix.lower() in MANY_CLOUDS)


def has_val(config: PointDataConfig) -> bool:
    """Whether there is a folder or a file val, or a CSV file with a split val beside a split test."""
    if (path := csv_of(config)) is None:
        root = Path(config.root or "")
        return (root / "val").is_dir() or bool(labeled_files(root, "val"))
    splits = read_labels(path, file_key=config.input_key, label_key=config.target_key).splits
    return splits is not None and {"val", "test"} <= set(splits)


@register_source("folder", check=require_root(), defaults=DEFAULTS, has_val=has_val)
def open_split(config: PointDataConfig, split: str) -> ListedClouds:
    """A split of ROOT/SPLIT/CLASS/**/FILE, of the CSV file of labels, or of files with labels, ROOT/SPLIT/FILE or
    ROOT/SPLIT.SUFFIX. All clouds of a file in a class folder or a CSV file have one label.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a class has no cloud, a split has a class that train lacks, or the labels in a file do not fit.
    """
    root = Path(config.root or "")
    if not root.is_dir():
        raise FileNotFoundError(
            f"data.root: no folder {root}; expected one with train/CLASS and test/CLASS, or labels.csv"
        )
    path = csv_of(config)
    if path is None and (labeled := labeled_files(root, split)):
        names, places, labels = labeled_places(labeled, config, same_order=split == "train")
        if (root / split).is_dir():
            _warn_of_left(root / split, labeled, "files with labels")
    else:
        names, files, of_files = _class_folders(root, split) if path is None else _csv(path, config, split)
        places, counts = places_in(files, config)
        labels = np.repeat(of_files, counts)
    if config.classes is not None:
        names, labels = _relabeled(names, labels, list(config.classes), f"{path or root / split}")
    return ListedClouds(names, places, labels, config)


def _csv(path: Path, config: PointDataConfig, split: str) -> tuple[list[str], list[Path], Int64[np.ndarray, " N"]]:
    table = read_labels(path, file_key=config.input_key, label_key=config.target_key)
    usual = None if split == "test" else split  # val where there is no test split
    chosen = table.part(usual, seed=config.split_seed)
    names, files, labels = list(table.classes), [table.files[i] for i in chosen], table.targets[chosen]
    if unknown := Counter(file.suffix.lower() for file in files if file.suffix.lower() not in CLOUD_READERS):
        expected = f"expected {', '.join(SUFFIXES)}"
        raise ValueError(f"{path} names files of unknown kind ({_counted(unknown)}); {expected}")
    return names, files, labels


def _class_folders(root: Path, split: str) -> tuple[list[str], list[Path], Int64[np.ndarray, " N"]]:
    if not (root / split).is_dir():
        there = (
            shortened(sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))) or "nothing"
        )
        if (other := source_of(str(root))) != "folder":
            raise FileNotFoundError(f"{root} holds the files of {other}; set data.source {other}")
        raise FileNotFoundError(
            f"no folder {root / split}, expected {split}/CLASS/* or labels.csv in {root}, or {split}.h5 with labels; "
            f"it has {there}"
        )
    others: Counter[str] = Counter()

    def is_sample(path: Path) -> bool:
        found = is_cloud(path)
        others.update([] if found else [path.suffix.lower() or path.name])
        return found

    found = class_files(root / split, is_sample=is_sample, what="cloud", suffixes=SUFFIXES)
    _warn_of_left(root / split, (), "class folders")
    if others:
        warnings.warn(f"{root / split}: files that are no clouds are left out: {_counted(others)}", stacklevel=2)
    return found


def _warn_of_left(folder: Path, read: Sequence[Path], what: str) -> None:
    """Count the clouds in a folder, not below it, that are not among those that are read."""
    files = (Path(entry.path) for entry in os.scandir(folder) if entry.is_file() and not is_junk(entry.name))
    if left := sum(is_cloud(path) for path in files if path not in read):
        be = "is" if left == 1 else "are"
        warnings.warn(f"{folder}: {counted(left, 'cloud')} beside the {what} {be} left out", stacklevel=3)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{number} {kind or 'without suffix'}" for kind, number in kinds.most_common(5))


def _relabeled(
    names: list[str], labels: Int64[np.ndarray, " N"], classes: list[str], where: str
) -> tuple[list[str], Int64[np.ndarray, " N"]]:
    """The labels as places in a given list of classes."""
    used = [names[label] for label in np.unique(labels)]
    if unknown := [name for name in used if name not in classes]:
        raise ValueError(f"{where} has class {shortened(unknown)}, which is not among {shortened(classes)}")
    place = np.array([classes.index(name) if name in classes else -1 for name in names])
    return classes, place[labels].astype(np.int64)
