"""Settings that several sources share: checks, and the rule for labels of clouds."""

from __future__ import annotations

from pointmix.data.segment.clouds.labels import LabelRule
from pointmix.data.segment.config import SegmentDataConfig

LABELS = ("classes", "label_map", "reduce_zero_label", "ignore_index")  # settings for files whose labels mean anything


def check_root(config: SegmentDataConfig) -> None:
    """Raise ValueError if data.root is not set."""
    if not config.root:
        raise ValueError(f"data.root is not set; expected the folder of {config.source}")


def check_own_labels(config: SegmentDataConfig) -> None:
    """Raise ValueError for settings of labels, which a source with labels of its own would ignore."""
    if used := [key for key in LABELS if getattr(config, key) is not None]:
        raise ValueError(f"data.{used[0]} is set, but data.source is {config.source}, which has labels of its own")


def check_unused(config: SegmentDataConfig, *keys: str) -> None:
    """Raise ValueError if one of these settings of other sources is set."""
    if used := [key for key in keys if getattr(config, key) is not None]:
        raise ValueError(f"data.{used[0]} is set, but data.source is {config.source}, which does not use it")


def label_rule(config: SegmentDataConfig, num_classes: int) -> LabelRule:
    """The rule for labels that the settings ask for; errors as in `LabelRule`."""
    ignored = 255 if config.ignore_index is None else config.ignore_index
    return LabelRule(num_classes, config.label_map, ignored, bool(config.reduce_zero_label))
