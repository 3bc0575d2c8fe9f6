"""Scenes as folders of .npy files, as Pointcept stores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from pointmix.data.segment.clouds.features import feature_name
from pointmix.data.segment.clouds.files import FoundCloud, as_positions
from pointmix.data.segment.clouds.labels import LABEL_NAMES
from pointmix.io.errors import UnreadableSample
from pointmix.io.formats.npy import read_npy
from pointmix.utils.messages import one_line


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is looked up."""

    def __init__(self, read: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._read = read

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def scene_folders(folder: Path, label_files: tuple[str, ...]) -> list[Path]:
    """The scenes in a folder, in order of their names.

    Args:
        label_files: names of files with labels, without .npy; every scene needs one of them.
    Raises:
        FileNotFoundError: if there is no such folder, no scene in it, or a scene without positions or labels.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}, expected {folder}/SCENE/coord.npy")
    scenes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not scenes:
        raise FileNotFoundError(f"{folder} has no scenes, expected {folder}/SCENE/coord.npy")
    for scene in scenes:
        if not (scene / "coord.npy").is_file():
            raise FileNotFoundError(f"no file {scene}/coord.npy, the positions of the scene")
        if not any((scene / f"{name}.npy").is_file() for name in label_files):
            names = " or ".join(f"{name}.npy" for name in label_files)
            raise FileNotFoundError(f"no file {names} in {scene}, the labels of the scene")
    return scenes


def read_scene(folder: str | Path, label_files: tuple[str, ...]) -> FoundCloud:
    """The scene in a folder with coord.npy, color.npy, normal.npy and the like (Pointcept's form).

    Args:
        label_files: names of files with labels without .npy; the first that is there counts, the others are not read.
    Raises:
        UnreadableSample: if the positions or labels cannot be read; on access, if features cannot.
    """
    files = {path.stem: path for path in sorted(Path(folder).glob("*.npy"))}
    pos = as_positions(_read_array(files.pop("coord", Path(folder, "coord.npy"))))
    label = next((name for name in label_files if name in files), None)
    rest = [name for name in files if name not in (*LABEL_NAMES, *label_files, "instance")]
    features = LazyArrays({feature_name(name): partial(_read_array, files[name]) for name in rest})
    return FoundCloud(pos, features, None if label is None else _read_array(files[label]))


def _read_array(path: Path) -> np.ndarray:
    try:
        return read_npy(path)
    except (ValueError, OSError) as e:
        raise UnreadableSample(f"cannot read {path.name}: {one_line(e)}") from e
