"""Training runs on point clouds: their configuration, and what the engine asks of this kind of data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.resolve import resolve
from pointmix.data.clouds.splits import PointSplits, build_points
from pointmix.engine.config import RunConfig
from pointmix.engine.evaluate import try_input
from pointmix.pointset import PointSet
from pointmix.tasks import ClassifyPoints
from pointmix.tasks.voting import Voting
from pointmix.utils.ranges import COUNT, PART, check_fields


@dataclass(frozen=True)
class SmoothConfig:
    """Smoothing of labels."""

    smoothing: Annotated[float, PART] = 0.0
    """Probability taken from the true class and shared evenly by the others."""

    def __post_init__(self) -> None:
        check_fields(self, "mix.")


@dataclass(frozen=True)
class TrainPointsConfig(RunConfig):
    """Train a classifier of point clouds."""

    unit: ClassVar[str] = "clouds"
    drawn_by: ClassVar[tuple[str, ...]] = ("explain", "forward_intermediates")  # else the anchors of each stage

    data: PointDataConfig = field(default_factory=PointDataConfig)
    """The clouds."""
    mix: SmoothConfig = field(default_factory=SmoothConfig)
    """Label smoothing."""
    epochs: Annotated[int, COUNT] = 250
    """Epochs of the schedule, without its cool-down."""
    batch_size: Annotated[int, COUNT] = 32
    """Clouds a step and process."""
    votes: Annotated[int, COUNT] = 1
    """With more than one, also test with the mean of so many votes, each on clouds of other proportions: every axis
    scaled by a random factor from data.scale (2/3 to 3/2 where that is off)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_votes(self.votes, self.data)
        resolve(self.data)  # refuses what is out of range before anything is read

    def build_splits(self, *, rank: int, world_size: int) -> PointSplits:
        size = {"batch_size": self.batch_size, "eval_batch_size": self.batch_size}
        return build_points(self.data, **size, seed=self.seed, rank=rank, world_size=world_size)

    def build_task(self, splits: PointSplits) -> ClassifyPoints:
        return ClassifyPoints(len(splits.classes), **asdict(self.mix))

    def data_kwargs(self, splits: PointSplits) -> dict[str, Any]:
        return splits.model_kwargs

    def info(self, splits: PointSplits) -> dict[str, Any]:
        return {}

    def check_input(self, model: nn.Module, splits: PointSplits) -> None:
        given, number = splits.model_kwargs, self.data.points
        channels, dims = given["in_chans"], given["coord_dims"]
        points = torch.linspace(-1, 1, number * dims).view(dims, number).t().contiguous()  # (N, D)
        blank = PointSet.from_points(points, points.new_zeros(number, channels))
        what = f"clouds of {number} points in {dims}-D with {channels} features"
        more = {"classes": given["num_classes"], "alone": self.batch_size == 1}
        try_input(model, self.model.name, blank, what=what, **more)

    def draw_clusters(self, model: nn.Module, splits: PointSplits, path: Path) -> None:
        from pointmix.explain.clouds import draw_clouds

        names = splits.classes
        first: dict[int, PointSet] = {}  # one test cloud of each of the first four classes met
        for points, targets in islice(iter(splits.test), 32):
            for cloud, target in zip(points.unbind(), targets.tolist(), strict=True):
                if len(first) < 4:
                    first.setdefault(target, cloud)
        clouds = PointSet.cat(list(first.values())).to(next(model.parameters()).device)
        with torch.no_grad():
            guesses = model(clouds).argmax(1).tolist()
        titles = [f"{names[target]}, taken for {names[guess]}" for target, guess in zip(first, guesses, strict=True)]
        draw_clouds(model, clouds, path, titles=titles, up="y")

    def more_tests(self, model: nn.Module) -> dict[str, nn.Module]:
        if self.votes == 1:
            return {}
        return {f"{self.votes} votes": voting(model, self.votes, self.data)}


def check_votes(votes: int, data: PointDataConfig) -> None:
    """Refuse a number of votes that is none, or that such data do not allow."""
    COUNT.check(votes=votes)
    if votes > 1 and data.features == "normal":
        raise ValueError("votes scale positions but not normals; expected votes 1 with data.features normal")


def voting(model: nn.Module, votes: int, data: PointDataConfig) -> Voting:
    """The mean of so many votes, on clouds scaled as in training, or by 2/3 to 3/2 where training does not scale."""
    low, high = data.scale if data.scale[0] < data.scale[1] else (2 / 3, 3 / 2)
    return Voting(model, votes=votes, low=low, high=high)
