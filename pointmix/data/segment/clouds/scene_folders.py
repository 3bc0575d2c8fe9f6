"""Scenes as folders of .npy files, as Pointcept stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointmix.data.paths import is_junk
from pointmix.io import FoundCloud
from pointmix.io.errors import UnreadableSample
from pointmix.io.formats.npy import read_npy
from pointmix.io.names import LABEL_NAMES, feature_name, missing_feature
from pointmix.io.validate import as_positions
from pointmix.utils.messages import one_line


def scene_folders(folder: Path, label_files: tuple[str, ...]) -> list[Path]:
    """The scenes in a folder, in order of their names.

    Args:
        label_files: names of files with labels, without .npy; every scene needs one of them.

    Raises:
        FileNotFoundError: if there is no such folder, no scene in it, or a scene without positions or labels.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}, expected {folder}/SCENE/coord.npy")
    scenes = sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))
    if not scenes:
        raise FileNotFoundError(f"{folder} has no scenes, expected {folder}/SCENE/coord.npy")
    for scene in scenes:
        if not (scene / "coord.npy").is_file():
            raise FileNotFoundError(f"no file {scene}/coord.npy, the positions of the scene")
        if not any((scene / f"{name}.npy").is_file() for name in label_files):
            names = " or ".join(f"{name}.npy" for name in label_files)
            raise FileNotFoundError(f"no file {names} in {scene}, the labels of the scene")
    return scenes


def read_scene(folder: str | Path, label_files: tuple[str, ...], features: tuple[str, ...] | None = None) -> FoundCloud:
    """The scene in a folder with coord.npy, color.npy, normal.npy and the like (Pointcept's form).

    Args:
        label_files: names of files with labels without .npy; the first that is there counts, the others are not read.
        features: names of the features to read; None: all.

    Raises:
        UnreadableSample: if the positions, the labels or a feature cannot be read.
    """
    files = {path.stem: path for path in sorted(Path(folder).glob("*.npy"))}
    pos = as_positions(_read_array(files.pop("coord", Path(folder, "coord.npy"))), dims=3)
    label = next((name for name in label_files if name in files), None)
    others = (*LABEL_NAMES, *label_files, "instance")
    there = {feature_name(name): path for name, path in files.items() if name not in others}
    wanted = tuple(there) if features is None else features
    if lacking := [name for name in wanted if name not in there]:
        raise missing_feature(lacking[0], there)
    arrays = {name: _read_array(there[name]) for name in wanted}
    return FoundCloud(pos, arrays, None if label is None else _read_array(files[label]))


def _read_array(path: Path) -> np.ndarray:
    try:
        return read_npy(path)
    except (ValueError, OSError) as e:
        raise UnreadableSample(f"cannot read {path.name}: {one_line(e)}") from e
