"""S3DIS: six areas of office buildings in rooms, 13 classes (Armeni et al., CVPR 2016), in Pointcept's form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pointmix.data.segment.clouds.labeled import LabeledClouds
from pointmix.data.segment.clouds.scene_folders import read_scene, scene_folders
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.settings import check_own_labels, check_root, check_unused, label_rule
from pointmix.data.segment.source import Color, register_segment_source

CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board",
    "clutter",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 255, 0), (255, 0, 255), (100, 100, 255), (200, 200, 100),
    (170, 120, 200), (255, 0, 0), (200, 100, 100), (10, 200, 100), (200, 200, 200), (50, 50, 50),
)  # fmt: skip
LABELS = ("segment",)


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_own_labels(config)
    check_unused(config, "keys", "columns", "train_files", "val_files", "test_files")


@register_segment_source(
    "s3dis",
    kind="cloud",
    check=_check,
    defaults={"features": ("rgb",), "up": "z", "grid_size": 0.04, "crop": "sphere", "max_points": 24000},
)
def open_s3dis(config: SegmentDataConfig, split: str) -> LabeledClouds | None:
    """Rooms ROOT/Area_N/ROOM with coord.npy, color.npy, normal.npy and segment.npy; missing labels are -1.

    Test is area `test_area`, train all others that are there; there is no validation split.
    """
    if split == "val":
        return None
    test = 5 if config.test_area is None else config.test_area
    areas = [test] if split == "test" else [area for area in range(1, 7) if area != test]
    folders = [path for area in areas if (path := Path(config.root or "", f"Area_{area}")).is_dir()]
    if not folders:
        raise FileNotFoundError(f"no folder {config.root}/Area_{areas[0]}, expected Area_1 to Area_6 in data.root")
    rooms = [room for folder in folders for room in scene_folders(folder, LABELS)]
    read = partial(read_scene, label_files=LABELS, features=config.features)
    return LabeledClouds(rooms, read, label_rule(config, len(CLASSES)), CLASSES, "segment.npy", PALETTE)
