"""The configuration of image classification."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pointmix.data.images.config import DataConfig
from pointmix.tasks.classification.config import ClassLossConfig, check_balance
from pointmix.tasks.config import RunConfig
from pointmix.utils.ranges import FRACTION, FRACTION_BELOW_1, NONNEGATIVE, check_fields


@dataclass(frozen=True)
class MixConfig:
    """Mixing of images and smoothing of labels in a batch."""

    mixup: Annotated[float, NONNEGATIVE] = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: Annotated[float, NONNEGATIVE] = 0.0
    """Alpha of CutMix; 0 is off."""
    switch_prob: Annotated[float, FRACTION] = 0.5
    """Probability of CutMix rather than mixup in a batch when both are on."""
    smoothing: Annotated[float, FRACTION_BELOW_1] = 0.0
    """Label smoothing."""

    def __post_init__(self) -> None:
        check_fields(self, "mix.")


@dataclass(frozen=True)
class ClassifyImagesConfig(RunConfig):
    """Train an image classifier."""

    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup, CutMix, label smoothing."""
    loss: ClassLossConfig = field(default_factory=ClassLossConfig)
    """The loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from pointmix.data.images.resolve import resolve

        if (self.mix.mixup > 0 or self.mix.cutmix > 0) and self.batch_size % 2:
            raise ValueError(f"batch_size must be even with mixup or cutmix, got {self.batch_size}")
        check_balance(self.loss, balanced=self.data.balanced)
        resolve(self.data)  # refuses wrong values before anything is read

    @classmethod
    def root_source(cls, root: str) -> str:
        return "folder"

    @property
    def data_name(self) -> str:
        """The name of the data's folder, or of their source."""
        root, source = self.data.root, self.data.source
        return Path(root).resolve().name if root and source in ("folder", "wds/") else source
