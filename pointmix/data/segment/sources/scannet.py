"""ScanNet: scans of rooms, 20 classes (Dai et al., CVPR 2017), in Pointcept's form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pointmix.data.segment.clouds.labeled import LabeledClouds
from pointmix.data.segment.clouds.scene_folders import read_scene, scene_folders
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.settings import check_own_labels, check_root, check_unused, label_rule
from pointmix.data.segment.source import Color, register_segment_source

CLASSES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "otherfurniture",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (174, 199, 232), (152, 223, 138), (31, 119, 180), (255, 187, 120), (188, 189, 34), (140, 86, 75), (255, 152, 150),
    (214, 39, 40), (197, 176, 213), (148, 103, 189), (196, 156, 148), (23, 190, 207), (247, 182, 210),
    (219, 219, 141), (255, 127, 14), (158, 218, 229), (44, 160, 44), (112, 128, 144), (227, 119, 194), (82, 84, 163),
)  # fmt: skip
LABELS = ("segment20", "segment")


def _check(config: SegmentDataConfig) -> None:
    check_root(config)
    check_own_labels(config)
    check_unused(config, "keys", "columns", "train_files", "val_files", "test_files", "test_area")


@register_segment_source(
    "scannet",
    kind="cloud",
    check=_check,
    defaults={"features": ("rgb",), "up": "z", "grid_size": 0.02, "crop": "sphere", "max_points": 64000},
)
def open_scannet(config: SegmentDataConfig, split: str) -> LabeledClouds | None:
    """Scenes ROOT/SPLIT/SCENE with coord.npy, color.npy, normal.npy and segment20.npy or segment.npy; missing labels
    are -1.

    Test is the folder val, as the labels of the test scans are not public; there is no other validation split.
    """
    if split == "val":
        return None
    folder = Path(config.root or "", "val" if split == "test" else split)
    read = partial(read_scene, label_files=LABELS, features=config.features)
    rule = label_rule(config, len(CLASSES))
    return LabeledClouds(scene_folders(folder, LABELS), read, rule, CLASSES, "segment20.npy or segment.npy", PALETTE)
