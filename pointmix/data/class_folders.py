"""Files in class folders, FOLDER/CLASS/**/NAME."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pointmix.data.paths import files_below, is_junk
from pointmix.data.splits import shortened


def class_files(
    folder: Path, *, is_sample: Callable[[Path], bool], what: str, suffixes: Sequence[str]
) -> tuple[list[str], list[Path], Int64[np.ndarray, " N"]]:
    """Names of the classes, sorted files, and the label of each. A class is a folder right below FOLDER.

    Hidden files and folders and other junk (see `pointmix.data.paths.JUNK`) are skipped; a warning names skipped class
    folders, and classes whose names differ only in case.

    Args:
        is_sample: whether a file is a sample.
        what: what messages call a sample.
        suffixes: of the samples, the usual one first.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no class folder, or one without samples.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected {folder}/CLASS/*{suffixes[0]}")
    below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    classes = [name for name in below if not is_junk(name)]
    if not classes:
        raise ValueError(f"{folder} has no class folders; expected {folder}/CLASS/*{suffixes[0]}")
    if len(classes) < len(below):
        ignored = shortened([name for name in below if is_junk(name)])
        warnings.warn(f"{folder}: {ignored} skipped, not a class", stacklevel=3)
    warn_of_case(classes, folder)
    found = [[path for path in files_below(folder / name) if is_sample(path)] for name in classes]
    if empty := [name for name, files in zip(classes, found, strict=True) if not files]:
        raise ValueError(
            f"no {what} in class folder {shortened(empty)} of {folder}; expected files ending in {' '.join(suffixes)}"
        )
    targets = np.repeat(np.arange(len(classes)), [len(files) for files in found])
    return classes, [path for files in found for path in files], targets


def warn_of_case(classes: list[str], where: Path) -> None:
    """Warn of classes whose names differ only in case: two ways to write one class, or one on another system."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.casefold(), []).append(name)
    if same := [" and ".join(names) for names in alike.values() if len(names) > 1]:
        warnings.warn(f"{where}: classes {shortened(same)} differ only in case", stacklevel=4)
