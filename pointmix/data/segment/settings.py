"""Settings that several sources share: checks, and the rule for labels of clouds."""

from __future__ import annotations

from collections.abc import Sequence

from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.sample import ignored_label
from pointmix.data.splits import shortened

LABELS = (  # settings for files whose labels mean anything
    *("classes", "label_map", "reduce_zero_label", "ignore_index"),
    *("label_name", "label_starts", "palette_file"),
)
FILES = ("root", "train_files", "val_files", "test_files", "test_area", "keys", "columns")


def check_root(config: SegmentDataConfig) -> None:
    """Raise ValueError if data.root is not set."""
    if not config.root:
        raise ValueError(f"data.root is not set; expected the folder of {config.source}")


def check_class_names(names: Sequence[str]) -> None:
    """Raise ValueError for names that are empty or occur twice."""
    if "" in names:
        raise ValueError(f"class {list(names).index('')} has an empty name, expected a name for each class")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"class {shortened(twice)} is named twice, expected different names")


def check_own_labels(config: SegmentDataConfig) -> None:
    """Raise ValueError for settings of labels, which a source with labels of its own would ignore."""
    if used := [key for key in LABELS if getattr(config, key) is not None]:
        raise ValueError(f"data.{used[0]} is set, but data.source is {config.source}, which has labels of its own")


def check_generated(config: SegmentDataConfig) -> None:
    """Raise ValueError for settings of files, which a source that makes its samples would ignore."""
    check_own_labels(config)
    check_unused(config, *FILES)


def check_unused(config: SegmentDataConfig, *keys: str) -> None:
    """Raise ValueError if one of these settings of other sources is set."""
    if used := [key for key in keys if getattr(config, key) is not None]:
        raise ValueError(f"data.{used[0]} is set, but data.source is {config.source}, which does not use it")


def label_rule(config: SegmentDataConfig, num_classes: int) -> LabelRule:
    """The rule for labels that the settings ask for; errors as in `LabelRule`."""
    if config.label_map is not None:
        zero = bool(config.reduce_zero_label)
        return LabelRule(num_classes, config.label_map, reduce_zero_label=zero, nan=config.nan)
    ignored = ignored_label(config.ignore_index, num_classes, first=int(bool(config.reduce_zero_label)))
    return LabelRule(num_classes, None, ignored, bool(config.reduce_zero_label), config.nan)
