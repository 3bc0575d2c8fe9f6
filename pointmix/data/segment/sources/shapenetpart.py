"""ShapeNetPart: objects of 16 categories with 50 parts (Yi et al., SIGGRAPH Asia 2016), as text or HDF5 files."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.clouds.part_files import H5Files, TextFiles, list_text_files
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import LabeledCloud
from pointmix.data.segment.settings import check_own_labels, check_root, check_unused
from pointmix.data.segment.source import Color, register_segment_source
from pointmix.io.errors import BadMask, UnreadableSample
from pointmix.io.validate import as_positions
from pointmix.utils.messages import one_line

PARTS = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2, "Lamp": 4,
    "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip  # category -> number of its parts
_ENDS = list(accumulate(PARTS.values(), initial=0))
CATEGORIES = {name: tuple(range(*ends)) for name, *ends in zip(PARTS, _ENDS[:-1], _ENDS[1:], strict=True)}
CLASSES = tuple(f"{name} {part}" for name, count in PARTS.items() for part in range(count))
RULE = LabelRule(len(CLASSES))


@dataclass(frozen=True)
class Objects:
    """The objects of a split."""

    files: TextFiles | H5Files
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
            pos = as_positions(pos, dims=3)
        except (ValueError, OSError) as e:
            raise UnreadableSample(one_line(e)) from e
        label, (name, parts) = RULE.classes_of(found, len(pos), self.name(index)), list(CATEGORIES.items())[category]
        if (wrong := ~np.isin(label, parts)).any():
            at = int(wrong.argmax())
            what = f"label {label[at]} at point {at}, expected {parts[0]} to {parts[-1]}, the parts of {name}"
            raise BadMask(f"{self.name(index)}: {what}")
        return LabeledCloud(pos, features, label, category)


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_own_labels(config)
    check_unused(config, "keys", "columns", "train_files", "val_files", "test_files", "test_area")


@register_segment_source(
    "shapenetpart",
    kind="cloud",
    check=_check,
    defaults={"features": (), "normalize": "unit_sphere", "up": "y", "rotate": 0.0, "max_points": 2048},
)
def open_shapenetpart(config: SegmentDataConfig, split: str) -> Objects | None:
    """The text files of shapenetcore_partanno_segmentation_benchmark_v0_normal, else ROOT/ply_data_SPLIT*.h5; without
    HDF5 files for "val" there is no such split.

    Raises:
        FileNotFoundError: if there are neither.
        ValueError: if a list or an HDF5 file is damaged.
    """
    root = Path(config.root or "")
    files: TextFiles | H5Files
    if (root / "synsetoffset2category.txt").is_file():
        files = list_text_files(root, split, list(CATEGORIES))
    elif paths := sorted(root.glob(f"ply_data_{split}*.h5")):
        files = H5Files(paths, len(CATEGORIES))
    elif split == "val" and any(root.glob("ply_data_train*.h5")):
        return None
    else:
        raise FileNotFoundError(f"neither {root}/synsetoffset2category.txt nor {root}/ply_data_{split}*.h5")
    if not len(files):
        raise ValueError(f"{root} has no objects for {split}")
    return Objects(files)
