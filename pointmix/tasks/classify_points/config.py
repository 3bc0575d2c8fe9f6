"""The configuration of the classification of point clouds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pointmix.data.clouds.config import PointDataConfig
from pointmix.tasks.classification.config import ClassLossConfig, check_balance
from pointmix.tasks.config import RunConfig
from pointmix.utils.ranges import COUNT, FRACTION_BELOW_1, check_fields


@dataclass(frozen=True)
class SmoothConfig:
    """Smoothing of labels."""

    smoothing: Annotated[float, FRACTION_BELOW_1] = 0.0
    """Probability taken from the true class and shared evenly by the others."""

    def __post_init__(self) -> None:
        check_fields(self, "mix.")


@dataclass(frozen=True)
class ClassifyPointsConfig(RunConfig):
    """Train a classifier of point clouds."""

    free_keys: ClassVar[frozenset[str]] = frozenset({"votes"})

    data: PointDataConfig = field(default_factory=PointDataConfig)
    """The clouds."""
    mix: SmoothConfig = field(default_factory=SmoothConfig)
    """Label smoothing."""
    loss: ClassLossConfig = field(default_factory=ClassLossConfig)
    """The loss."""
    epochs: Annotated[int, COUNT] = 250
    """Epochs of the schedule, without its cool-down."""
    batch_size: Annotated[int, COUNT] = 32
    """Clouds a step and process."""
    votes: Annotated[int, COUNT] = 1
    """With more than one, also test with the mean of this many votes. Those beyond one look at every point are on
    clouds of other proportions: every axis scaled by a random factor from data.scale (2/3 to 3/2 where that is off)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from pointmix.data.clouds.resolve import resolve
        from pointmix.tasks.classify_points.voting import check_votes

        check_votes(self.votes, self.data)
        check_balance(self.loss, balanced=self.data.balanced)
        resolve(self.data)  # refuses wrong values before anything is read

    @classmethod
    def root_source(cls, root: str) -> str:
        """ScanObjectNN and ModelNet40 by their files, else class folders."""
        from pointmix.data.clouds.sources.folder import source_of

        return source_of(root)

    @property
    def data_name(self) -> str:
        """The source of the data."""
        return self.data.source
