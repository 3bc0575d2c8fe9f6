"""Objects with labeled parts in files, in the forms of ShapeNetPart."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointmix.data.paths import read_lines
from pointmix.io.formats.hdf5 import open_hdf5
from pointmix.io.validate import check_numbers, check_read
from pointmix.utils.limits import check_limit, regular_file
from pointmix.utils.messages import one_line

Found = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, int]  # positions, features, labels, category


@dataclass(frozen=True)
class TextFiles:
    """Files with a line `x y z nx ny nz label` a point, and their categories."""

    paths: list[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index][0])

    def read(self, index: int) -> Found:
        path, category = self.paths[index]
        check_limit("ARRAY_BYTES", regular_file(path).stat().st_size, "it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a file without numbers
            table = np.loadtxt(path, dtype=np.float32, ndmin=2)
        if not table.size:
            raise ValueError("it has no point")
        if table.shape[1] != 7:
            raise ValueError(f"lines have {table.shape[1]} numbers, expected x y z nx ny nz label")
        return table[:, :3], {"normal": table[:, 3:6]}, table[:, 6], category


class H5Files:
    """HDF5 files with data (n, N, 3), the positions, pid (n, N), the labels, and label (n,) or (n, 1), the categories;
    some have normal (n, N, 3)."""

    def __init__(self, paths: list[Path], categories: int) -> None:
        self.rows: list[tuple[Path, int, int]] = []  # file, row, category
        for path in paths:
            with open_hdf5(path) as file:
                if missing := [key for key in ("data", "pid", "label") if key not in file]:
                    raise ValueError(f"{path} has no key {missing[0]!r}; it has {', '.join(sorted(file)) or 'none'}")
                for key in ("data", "pid", "label"):
                    check_numbers(f"{path}: {key}", file[key])
                check_read(file["label"], file["label"].shape, f"{path}: label")
                category, count = np.asarray(file["label"]).reshape(-1), file["data"].shape[:2]
                if file["pid"].shape != count or category.shape != count[:1] or category.dtype.kind not in "iu":
                    shapes = f"pid {file['pid'].shape} and label {file['label'].shape} {category.dtype}"
                    raise ValueError(f"{path}: {shapes}, expected {count} and ({count[0]},) integers, as data is")
                if len(category) and not 0 <= category.min() <= category.max() < categories:
                    found, last = f"{category.min()} to {category.max()}", categories - 1
                    raise ValueError(f"{path}: categories {found}, expected 0 to {last}")
            self.rows += [(path, row, int(number)) for row, number in enumerate(category)]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return f"{self.rows[index][0]}[{self.rows[index][1]}]"

    def read(self, index: int) -> Found:
        path, row, category = self.rows[index]
        with open_hdf5(path) as file:
            arrays = {key: file[key] for key in ("data", "pid", "normal") if key in file}
            for key, array in arrays.items():
                check_read(array, array.shape[1:], key)
            found = {key: array[row] for key, array in arrays.items()}
        pos, label = found.pop("data"), found.pop("pid")
        return pos, found, label, category


def list_text_files(root: Path, split: str, categories: list[str]) -> TextFiles:
    """The files of a split, of ROOT/train_test_split/shuffled_SPLIT_file_list.json.

    Args:
        categories: names, in the order of their numbers.

    Raises:
        FileNotFoundError: if there is no list.
        ValueError: if a list is damaged.
    """
    listed, folders = root / f"train_test_split/shuffled_{split}_file_list.json", root / "synsetoffset2category.txt"
    check_limit("METADATA_BYTES", regular_file(listed, "list").stat().st_size, str(listed))
    words = [line.split() for line in read_lines(folders)]
    category = {line[1]: categories.index(line[0]) for line in words if len(line) == 2 and line[0] in categories}
    paths = []
    try:
        names = json.loads(listed.read_text())
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{listed} is not a list of names: {one_line(e)}") from e
    for entry in names if isinstance(names, list) else [names]:
        folder, name = str(entry).split("/")[-2:] if "/" in str(entry) else ("", str(entry))
        if folder not in category:
            raise ValueError(f"{listed}: {entry!r}, expected shape_data/FOLDER/NAME with a folder of {folders}")
        paths.append((root / folder / f"{name}.txt", category[folder]))
    return TextFiles(paths)
