"""Clouds in files, .ply, .las, .laz, .npz, each with a label for every point."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pointmix.data.paths import is_junk, read_lines
from pointmix.data.segment.clouds.files import read_file
from pointmix.data.segment.clouds.labeled import LabeledClouds
from pointmix.data.segment.clouds.labels import LABEL_NAMES
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.settings import check_root, check_unused, label_rule
from pointmix.data.segment.source import register_segment_source
from pointmix.io.registry import CLOUD_READERS

SPLITS = ("train", "val", "test")


def split_paths(config: SegmentDataConfig, split: str) -> list[Path] | None:
    """The files of a split in order of their names; None if it has neither a pattern nor a folder.

    Raises:
        FileNotFoundError: if a pattern or the folder matches no file that has a reader.
    """
    root, patterns = Path(config.root or ""), getattr(config, f"{split}_files")
    if patterns is None:
        patterns = (f"{split}/**/*",) if (root / split).is_dir() else ()
    if not patterns:
        return None
    paths: set[Path] = set()
    for pattern in patterns:
        if pattern.endswith(".txt"):
            found = [root / line for line in read_lines(root / pattern)]
        else:
            found = [path for path in root.glob(pattern) if not is_junk(str(path.relative_to(root)))]
            found = [path for path in found if path.suffix.lower() in CLOUD_READERS and path.is_file()]
        if not found:
            raise FileNotFoundError(f"no file {root}/{pattern}, expected {', '.join(CLOUD_READERS)} for {split}")
        paths.update(found)
    return sorted(paths)


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_unused(config, "test_area")
    if not config.classes:
        raise ValueError("data.classes is not set; expected the names of the classes in the order of their labels")
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
        if other != split and (shared := set(paths) & set(split_paths(config, other) or ())):
            raise ValueError(f"{min(shared)} is in both {split} and {other} (and {len(shared) - 1} more)")
    classes = config.classes or ()
    wanted = f"an array {config.label_name or ' or '.join(LABEL_NAMES)} (data.label_name)"
    return LabeledClouds(
        paths, partial(read_file, label_name=config.label_name), label_rule(config, len(classes)), classes, wanted
    )
