"""Clouds in files of any kind, in class folders or with a CSV file of labels."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pointmix.data.class_folders import class_files
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.files import read_named
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.clouds.source import register_source, require_root
from pointmix.data.label_csv import find_csv, read_labels
from pointmix.data.splits import shortened
from pointmix.io import is_cloud
from pointmix.io.errors import UnreadableSample
from pointmix.io.registry import CLOUD_READERS

LAYOUTS = {  # source -> what lies in its folder
    "scanobjectnn": ("main_split*/*_objectdataset*.h5", "h5_files/main_split*/*_objectdataset*.h5"),
    "modelnet40": ("ply_data_*.h5", "modelnet40_ply_hdf5_2048/*.h5", "train_files.txt"),
}
DEFAULTS = {"sampling": "random", "normalize": "unit_sphere"}


def source_of(root: str) -> str:
    """The source that reads a folder: that of a known layout, else folder."""
    found = (name for name, patterns in LAYOUTS.items() if any(any(Path(root).glob(p)) for p in patterns))
    return next(found, "folder")


@dataclass(frozen=True)
class CloudPaths:
    """A `Source` of labeled files with a cloud each.

    Args:
        classes: names, in the order of the labels.
        paths: the files.
        targets: (N,) labels.
        config: how the files are read, see `read_named`; with cache each is read once.
    """

    classes: list[str]
    paths: Sequence[Path]
    targets: Int64[np.ndarray, " N"]
    config: PointDataConfig
    kept: dict[int, NamedCloud | UnreadableSample] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.config.cache:  # now, so that worker processes share it
            self.kept.update({index: self._open(index) for index in range(len(self.paths))})

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, index: int) -> NamedCloud:
        """One cloud, with the features that the configuration names.

        Raises:
            UnreadableSample: it cannot be read.
        """
        found = self.kept[index] if index in self.kept else self._open(index)
        if isinstance(found, UnreadableSample):
            raise found
        return found

    def _open(self, index: int) -> NamedCloud | UnreadableSample:
        try:
            return read_named(self.paths[index], self.config)
        except UnreadableSample as error:
            return error


def csv_of(config: PointDataConfig) -> Path | None:
    """The CSV file of labels, or None for class folders."""
    root = Path(config.root or "")
    if config.labels is not None:
        return root / config.labels
    return None if (root / "train").is_dir() else find_csv(root)


def has_val(config: PointDataConfig) -> bool:
    """Whether there is a folder val, or a CSV file with a split val beside a split test."""
    if (path := csv_of(config)) is None:
        return Path(config.root or "", "val").is_dir()
    splits = read_labels(path, file_key=config.input_key, label_key=config.target_key).splits
    return splits is not None and {"val", "test"} <= set(splits)


@register_source("folder", check=require_root(), defaults=DEFAULTS, has_val=has_val)
def open_split(config: PointDataConfig, split: str) -> CloudPaths:
    """A split of ROOT/SPLIT/CLASS/**/FILE, or of the CSV file of labels.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: a class has no cloud, or a split has a class that train lacks.
    """
    root = Path(config.root or "")
    if not root.is_dir():
        raise FileNotFoundError(
            f"data.root: no folder {root}; expected one with train/CLASS and test/CLASS, or labels.csv"
        )
    path = csv_of(config)
    if path is not None:
        table = read_labels(path, file_key=config.input_key, label_key=config.target_key)
        usual = None if split == "test" else split  # val where there is no test split
        chosen = table.part(usual, seed=config.split_seed)
        names, files, labels = list(table.classes), [table.files[i] for i in chosen], table.targets[chosen]
        if unknown := Counter(file.suffix.lower() for file in files if file.suffix.lower() not in CLOUD_READERS):
            raise ValueError(f"{path} names files of unknown kind ({_counted(unknown)}); {_expected()}")
    else:
        names, files, labels = _class_folders(root, split)
    if config.classes is not None:
        names, labels = _relabeled(names, labels, list(config.classes), f"{path or root / split}")
    return CloudPaths(names, files, labels, config)


def _class_folders(root: Path, split: str) -> tuple[list[str], list[Path], Int64[np.ndarray, " N"]]:
    if not (root / split).is_dir():
        there = (
            shortened(sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))) or "nothing"
        )
        if (other := source_of(str(root))) != "folder":
            raise FileNotFoundError(f"{root} holds the files of {other}; set data.source {other}")
        raise FileNotFoundError(
            f"no folder {root / split}, expected {split}/CLASS/* or labels.csv in {root}; it has {there}"
        )
    others: Counter[str] = Counter()

    def is_sample(path: Path) -> bool:
        found = is_cloud(path)
        others.update([] if found else [path.suffix.lower() or path.name])
        return found

    found = class_files(root / split, is_sample=is_sample, what="cloud", suffixes=sorted(CLOUD_READERS))
    if others:
        warnings.warn(f"{root / split}: files that are no clouds are left out: {_counted(others)}", stacklevel=2)
    return found


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{number} {kind or 'without suffix'}" for kind, number in kinds.most_common(5))


def _expected() -> str:
    return f"expected {', '.join(sorted(CLOUD_READERS))}"


def _relabeled(
    names: list[str], labels: Int64[np.ndarray, " N"], classes: list[str], where: str
) -> tuple[list[str], Int64[np.ndarray, " N"]]:
    """The labels as places in a given list of classes."""
    used = [names[label] for label in np.unique(labels)]
    if unknown := [name for name in used if name not in classes]:
        raise ValueError(f"{where} has class {shortened(unknown)}, which is not among {shortened(classes)}")
    place = np.array([classes.index(name) if name in classes else -1 for name in names])
    return classes, place[labels].astype(np.int64)
