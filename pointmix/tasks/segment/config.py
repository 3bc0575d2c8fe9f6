"""The configuration of segmentation: a label for every pixel or point."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pointmix.data.segment.config import SegmentDataConfig
from pointmix.tasks.config import RunConfig
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, NONNEGATIVE, check_fields


@dataclass(frozen=True)
class LossConfig:
    """The loss: a weighted sum of cross-entropy, Dice and Lovasz-softmax over the points that have a label."""

    cross_entropy: Annotated[float, NONNEGATIVE] = 1.0
    """Weight of the cross-entropy, the mean over the labeled points."""
    class_weights: tuple[Annotated[float, NONNEGATIVE], ...] | Literal["balanced"] | None = None
    """Weight of each class in the cross-entropy, in the order of the labels; balanced: inversely proportional to its
    share of the labeled training points, for which all training samples are read once at the start, and 0 for classes
    without any. null: 1."""
    smoothing: Annotated[float, FRACTION_BELOW_1] = 0.0
    """Label smoothing of the cross-entropy."""
    dice: Annotated[float, NONNEGATIVE] = 0.0
    """Weight of the Dice loss, over the classes that occur in a batch."""
    lovasz: Annotated[float, NONNEGATIVE] = 0.0
    """Weight of the Lovasz-softmax loss (Berman et al., CVPR 2018), over the classes that occur in a batch. It sorts
    all labeled points of a batch, so the logits of all of them are stored, unlike with the other two."""

    def __post_init__(self) -> None:
        check_fields(self, "loss.")
        if not self.cross_entropy + self.dice + self.lovasz:
            raise ValueError("loss.cross_entropy, loss.dice and loss.lovasz are all 0, expected one above 0")


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
        from pointmix.data.segment.resolve import resolve
        from pointmix.data.segment.source import SEGMENT_SOURCES

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
