"""Clouds in files, .ply, .las, .laz, .npz, each with a label for every point."""

from __future__ import annotations

import os
from functools import partial
from glob import glob
from pathlib import Path

from pointmix.data.paths import files_below, is_junk, read_lines
from pointmix.data.segment.clouds.files import read_file
from pointmix.data.segment.clouds.labeled import LabeledClouds
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.settings import check_class_names, check_root, check_unused, label_rule
from pointmix.data.segment.source import register_segment_source
from pointmix.io import is_cloud
from pointmix.io.names import LABEL_NAMES
from pointmix.io.registry import CLOUD_READERS

SPLITS = ("train", "val", "test")


def split_paths(config: SegmentDataConfig, split: str) -> list[Path] | None:
    """The files of a split in order of their names; None if it has neither a pattern nor a folder.

    Raises:
        FileNotFoundError: if a pattern or the folder matches no file that has a reader, or a listed file is missing.
        ValueError: if a pattern is not one of files below the root.
    """
    root, patterns = Path(config.root or ""), getattr(config, f"{split}_files")
    if patterns is None:
        patterns = (split,) if (root / split).is_dir() else ()
    if not patterns:
        return None
    paths: dict[str, Path] = {}  # each file once, by whatever name
    for pattern in patterns:
        listed = pattern.endswith(".txt") and (root / pattern).is_file()
        if listed and (root / pattern).stat().st_size > 4:  # a point has five characters at least
            listed = not is_cloud(root / pattern)
        found = _listed(root, root / pattern) if listed else _matching(root, pattern)
        if not found:
            raise FileNotFoundError(f"no file {root / pattern}, expected {', '.join(CLOUD_READERS)} for {split}")
        paths |= {os.path.realpath(path): path for path in found}
    return sorted(paths.values())


def _listed(root: Path, path: Path) -> list[Path]:
    """The files that a list names, one a line."""
    if not (lines := read_lines(path)):
        raise ValueError(f"{path} is empty, expected a file a line")
    for number, line in enumerate(lines, start=1):
        if not (root / line).is_file():
            raise FileNotFoundError(f"{path}, line {number}: no file {root / line}")
    return [root / line for line in lines]


def _matching(root: Path, pattern: str) -> list[Path]:
    """The clouds that a pattern matches, or those in a folder and its subfolders."""
    if not pattern or Path(pattern).is_absolute():
        raise ValueError(f"data.root {root}: pattern {pattern!r}, expected one of files below this folder")
    if (root / pattern).is_dir():
        found = files_below(root / pattern)
    else:
        names = glob(pattern, root_dir=root, recursive=True)
        found = [root / name for name in names if not is_junk(name) and (root / name).is_file()]
    return [path for path in found if is_cloud(path)]


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_unused(config, "test_area")
    if not config.classes:
        raise ValueError("data.classes is not set; expected the names of the classes in the order of their labels")
    check_class_names(config.classes)
    label_rule(config, len(config.classes))


@register_segment_source("files", kind="cloud", check=_check, defaults={"features": ()})
def open_files(config: SegmentDataConfig, split: str) -> LabeledClouds | None:
    """The clouds of a split: of data.SPLIT_files, or of the folder ROOT/SPLIT.

    Raises:
        FileNotFoundError: if there is no folder or no file.
        ValueError: if a file is in two splits.
    """
    if not Path(config.root or "").is_dir():
        raise FileNotFoundError(f"no folder {config.root} (data.root)")
    paths = split_paths(config, split)
    if paths is None and split == "val":
        return None
    if paths is None:
        raise FileNotFoundError(f"no folder {config.root}/{split}; name files with data.{split}_files")
    for other in SPLITS:
        theirs = {os.path.realpath(path) for path in (split_paths(config, other) or ()) if other != split}
        if shared := [path for path in paths if os.path.realpath(path) in theirs]:
            raise ValueError(f"{shared[0]} is in both {split} and {other} (and {len(shared) - 1} more)")
    classes = config.classes or ()
    read = partial(read_file, label_name=config.label_name, keys=config.keys, columns=config.columns or ())
    wanted = f"an array {config.label_name or ' or '.join(LABEL_NAMES)} (data.label_name)"
    return LabeledClouds(paths, read, label_rule(config, len(classes)), classes, wanted)
