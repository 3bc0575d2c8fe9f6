"""Labels in a CSV file beside the samples: a line a file, with columns for file, label and, if there is one, split."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pointmix.data.class_folders import warn_of_case
from pointmix.data.paths import read_text
from pointmix.data.splits import shortened, stratified_split

NAMES = ("labels.csv", "data.csv")  # found without being named
FILE = ("file", "path", "image", "filename", "file_name", "filepath")
LABEL = ("label", "class", "target")
SPLIT = "split"
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}
TEST_FRACTION = 0.2  # of each class, where no column says which files are for test


@dataclass(frozen=True)
class LabelTable:
    """The lines of a CSV file.

    Args:
        path: of the file.
        files: the samples.
        classes: sorted by name, or by value where all are whole numbers.
        targets: labels.
        splits: "train", "val" or "test" of each file; None if there is no such column.
    """

    path: Path
    files: Sequence[Path]
    classes: list[str]
    targets: Int64[np.ndarray, " N"]
    splits: Sequence[str] | None

    def part(self, split: str | None, *, seed: int) -> Int64[np.ndarray, " n"]:
        """Indices of the files of a split. None is the test split: "test", or "val" where there is no test split.

        Without a column of splits, a fifth of each class is the test split.

        Args:
            seed: of the choice of the test split where there is no column.

        Raises:
            ValueError: there is no such split, or train lacks a class.
        """
        if self.splits is None:
            train, test = stratified_split(self.targets, fraction=TEST_FRACTION, seed=seed)
            parts = {"train": train, "test": test}
            warnings.warn(
                f"{self.path} has no column {SPLIT}: {TEST_FRACTION:.0%} of each class are the test split", stacklevel=2
            )
        else:
            names = np.asarray(self.splits)
            parts = {name: np.flatnonzero(names == name) for name in dict.fromkeys(self.splits)}
        name = ("test" if "test" in parts else "val") if split is None else SPLITS.get(split.lower(), split)
        there = sorted(key for key, indices in parts.items() if len(indices))
        if name not in there:
            raise ValueError(f"{self.path} has no files of split {name}; it has {', '.join(there)}")
        lacking = [self.classes[i] for i in np.setdiff1d(np.arange(len(self.classes)), self.targets[parts[name]])]
        if name == "train" and lacking:
            raise ValueError(f"{self.path}: split train has no file of class {shortened(lacking)}")
        return parts[name]


def find_csv(root: Path) -> Path | None:
    """The CSV file of labels in a folder, one of `NAMES`."""
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def read_labels(path: Path, *, file_key: str = FILE[0], label_key: str = LABEL[0]) -> LabelTable:
    """Read a CSV file of labels, separated by commas, semicolons or tabs. Files are relative to its folder.

    Args:
        file_key, label_key: names of the columns, ignoring case; one of `FILE` (or `LABEL`) stands for all of them.

    Raises:
        FileNotFoundError: there is no such CSV file, or it names a file that does not exist.
        ValueError: a column, a label or a split is missing or not known, or a file is named twice; with the line.
    """
    text = read_text(path, f"the labels {path}")
    header, _, _ = text.partition("\n")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as e:
        raise ValueError(f"{path}, line {reader.line_num}: {e}") from e
    columns = [_column(path, names, file_key, FILE), _column(path, names, label_key, LABEL)]
    columns += [names.index(SPLIT)] if SPLIT in names else []
    if not rows:
        raise ValueError(f"{path} has no line below its header, expected a line a file")
    seen: dict[str, int] = {}
    files: list[Path] = []
    labels: list[str] = []
    splits: list[str] = []
    missing: list[str] = []
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(names):
            raise ValueError(f"{where} has {len(row)} cells, its header {len(names)}")
        name, label, *split = (row[column] for column in columns)
        if not name or not label:
            raise ValueError(f"{where} has an empty {names[columns[bool(name)]]}")
        if split and split[0].lower() not in SPLITS:
            raise ValueError(f"{where}: split {split[0]!r}, expected train, val or test")
        file = path.parent / name
        key = os.path.realpath(file)
        if key in seen:
            other = labels[seen[key]]
            what = "again" if other == label else f"with label {label}, and in line {rows[seen[key]][0]} with {other}"
            raise ValueError(f"{where} names {name} {what}; expected each file once")
        seen[key] = len(files)
        if not file.is_file():
            missing.append(f"{where}: no file {file}")
        files.append(file)
        labels.append(label)
        splits += [SPLITS[word.lower()] for word in split]
    if missing:
        more = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        raise FileNotFoundError(missing[0] + more)
    whole = all(label.isascii() and label.isdigit() and len(label) < 19 for label in labels)
    classes = sorted(set(labels), key=lambda label: (int(label) if whole else 0, label))
    warn_of_case(classes, path)
    number = {label: i for i, label in enumerate(classes)}
    targets = np.array([number[label] for label in labels], dtype=np.int64)
    return LabelTable(path, files, classes, targets, splits or None)


def _column(path: Path, names: list[str], key: str, known: tuple[str, ...]) -> int:
    """The place of a column."""
    candidates = (key.lower(), *known) if key.lower() in known else (key.lower(),)
    for name in candidates:
        if name in names:
            return names.index(name)
    expected = " or ".join(dict.fromkeys(candidates))
    raise ValueError(f"{path} has no column {expected}; its header has {shortened(names) or 'nothing'}")
