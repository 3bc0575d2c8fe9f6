"""The configuration of segmentation: a label for every pixel or point."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import resolve
from pointmix.data.segment.source import SEGMENT_SOURCES
from pointmix.tasks.config import RunConfig
from pointmix.tasks.segment.loss import LossConfig
from pointmix.utils.ranges import COUNT


@dataclass(frozen=True)
class SegmentConfig(RunConfig):
    """Train a network to label every pixel of images or every point of clouds."""

    data: SegmentDataConfig = field(default_factory=SegmentDataConfig)
    """The images or clouds."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    epochs: Annotated[int, COUNT] = 100
    """Epochs of the schedule, without its cool-down."""
    batch_size: Annotated[int, COUNT] = 16
    """Crops a step and process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.source in SEGMENT_SOURCES:  # otherwise opening the source fails
            resolve(self.data)  # refuses wrong values before anything is read

    @classmethod
    def root_source(cls, root: str) -> str:
        return "folder"

    @property
    def data_name(self) -> str:
        """The name of the data's folder, or of their source."""
        root, source = self.data.root, self.data.source
        return Path(root).resolve().name if root and source in ("folder", "files") else source
