"""ShapeNetPart: objects of 16 categories with 50 parts (Yi et al., SIGGRAPH Asia 2016), as text or HDF5 files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np

from pointmix.data.paths import read_lines
from pointmix.data.segment.clouds.files import as_positions
from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import LabeledCloud
from pointmix.data.segment.settings import check_own_labels, check_root, check_unused
from pointmix.data.segment.source import Color, register_segment_source
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.io.formats.hdf5 import open_hdf5
from pointmix.io.validate import check_read
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line

PARTS = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4,
    "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip  # category -> number of its parts
_ENDS = list(accumulate(PARTS.values(), initial=0))
CATEGORIES = {name: tuple(range(*ends)) for name, *ends in zip(PARTS, _ENDS[:-1], _ENDS[1:], strict=True)}
CLASSES = tuple(f"{name} {part}" for name, count in PARTS.items() for part in range(count))
RULE = LabelRule(len(CLASSES))


class Files(Protocol):
    """Objects in files, each with its category."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, int]:
        """Positions, features, labels and category."""


@dataclass(frozen=True)
class Objects:
    """The objects of a split."""

    files: Files
    classes: tuple[str, ...] = CLASSES
    palette: tuple[Color, ...] | None = None
    categories: dict[str, tuple[int, ...]] = field(default_factory=lambda: CATEGORIES)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files.name(index)

    def read(self, index: int) -> LabeledCloud:
        """One object.

        Raises:
            UnreadableSample: if it cannot be read.
            BadMask: if a label is not one of the parts of its category.
        """
        try:
            pos, features, found, category = self.files.read(index)
            pos = as_positions(pos)
        except (ValueError, OSError) as e:
            raise UnreadableSample(one_line(e)) from e
        label, (name, parts) = RULE.classes_of(found, len(pos), self.name(index)), list(CATEGORIES.items())[category]
        if (wrong := ~np.isin(label, parts)).any():
            at = int(wrong.argmax())
            what = f"label {label[at]} at point {at}, expected {parts[0]} to {parts[-1]}, the parts of {name}"
            raise BadMask(f"{self.name(index)}: {what}")
        return LabeledCloud(pos, features, label, category)


@dataclass(frozen=True)
class TextFiles:
    """Files with a line `x y z nx ny nz label` a point, and their categories."""

    paths: list[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index][0])

    def read(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, int]:
        path, category = self.paths[index]
        check_limit("ARRAY_BYTES", regular_file(path).stat().st_size, "it")
        table = np.loadtxt(path, dtype=np.float32, ndmin=2)
        if table.shape[1] != 7:
            raise ValueError(f"lines have {table.shape[1]} numbers, expected x y z nx ny nz label")
        return table[:, :3], {"normal": table[:, 3:6]}, table[:, 6], category


class H5Files:
    """HDF5 files with data (n, N, 3), the positions, pid (n, N), the labels, and label (n,) or (n, 1), the categories;
    some have normal (n, N, 3)."""

    def __init__(self, paths: list[Path]) -> None:
        self.rows: list[tuple[Path, int, int]] = []  # file, row, category
        for path in paths:
            with open_hdf5(path) as file:
                if missing := [key for key in ("data", "pid", "label") if key not in file]:
                    raise ValueError(f"{path} has no key {missing[0]!r}; it has {', '.join(sorted(file)) or 'none'}")
                category, count = np.asarray(file["label"]).reshape(-1), file["data"].shape[:2]
                if file["pid"].shape != count or category.shape != count[:1] or category.dtype.kind not in "iu":
                    shapes = f"pid {file['pid'].shape} and label {file['label'].shape} {category.dtype}"
                    raise ValueError(f"{path}: {shapes}, expected {count} and ({count[0]},) integers, as data is")
                if len(category) and not 0 <= category.min() <= category.max() < len(CATEGORIES):
                    raise ValueError(f"{path}: categories {category.min()} to {category.max()}, expected 0 to 15")
            self.rows += [(path, row, int(number)) for row, number in enumerate(category)]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"{self.rows[index][0]}[{self.rows[index][1]}]"

    def read(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, int]:
        path, row, category = self.rows[index]
        with open_hdf5(path) as file:
            arrays = {key: file[key] for key in ("data", "pid", "normal") if key in file}
            for key, array in arrays.items():
                check_read(array, array.shape[1:], key)
            found = {key: array[row] for key, array in arrays.items()}
        pos, label = found.pop("data"), found.pop("pid")
        return pos, found, label, category


def _text_files(root: Path, split: str) -> TextFiles:
    """The files of a split, of ROOT/train_test_split/shuffled_SPLIT_file_list.json."""
    listed, folders = root / f"train_test_split/shuffled_{split}_file_list.json", root / "synsetoffset2category.txt"
    check_limit("METADATA_BYTES", regular_file(listed, "list").stat().st_size, str(listed))
    words = [line.split() for line in read_lines(folders)]
    category = {line[1]: list(CATEGORIES).index(line[0]) for line in words if len(line) == 2 and line[0] in CATEGORIES}
    paths = []
    try:
        names = json.loads(listed.read_text())
    except ValueError as e:
        raise ValueError(f"{listed} is not a list of names: {one_line(e)}") from e
    for entry in names:
        folder, name = str(entry).split("/")[-2:] if "/" in str(entry) else ("", str(entry))
        if folder not in category:
            raise ValueError(f"{listed}: {entry!r}, expected shape_data/FOLDER/NAME with a folder of {folders}")
        paths.append((root / folder / f"{name}.txt", category[folder]))
    return TextFiles(paths)


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_own_labels(config)
    check_unused(config, "train_files", "val_files", "test_files", "label_name", "test_area")


@register_segment_source(
    "shapenetpart",
    kind="cloud",
    check=_check,
    defaults={"features": (), "normalize": "unit_sphere", "up": "y", "rotate": 0.0, "max_points": 2048},
)
def open_shapenetpart(config: SegmentDataConfig, split: str) -> Objects:
    """The text files of shapenetcore_partanno_segmentation_benchmark_v0_normal, else ROOT/ply_data_SPLIT*.h5.

    Raises:
        FileNotFoundError: if there are neither.
        ValueError: if a list or an HDF5 file is damaged.
    """
    root = Path(config.root or "")
    files: Files
    if (root / "synsetoffset2category.txt").is_file():
        files = _text_files(root, split)
    elif paths := sorted(root.glob(f"ply_data_{split}*.h5")):
        files = H5Files(paths)
    else:
        raise FileNotFoundError(f"neither {root}/synsetoffset2category.txt nor {root}/ply_data_{split}*.h5")
    if not len(files):
        raise ValueError(f"{root} has no objects for {split}")
    return Objects(files)
