"""A task from outside the package: count the points of a cloud, a regression with its own metric and picture.

python scripts/train.py --import tests.outside.count_points --task count_points --output_dir RUN
python scripts/evaluate.py RUN --import tests.outside.count_points
python scripts/predict.py --run RUN --import tests.outside.count_points cloud.npy
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointmix.data.clouds.loaders import join_clouds
from pointmix.data.dataset import SourceDataset, collate
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.io import read_cloud
from pointmix.models import create_model
from pointmix.pointset import PointSet
from pointmix.tasks.base import Task, register_task
from pointmix.tasks.config import RunConfig
from pointmix.tasks.metrics import SumMetric
from pointmix.tasks.protocols import Info, Measurement, Metrics, Picture, Score
from pointmix.utils.ranges import COUNT, NATURAL, check_fields

CountBatch = tuple[PointSet, Tensor]  # B clouds, their numbers of points (B,)


@dataclass(frozen=True)
class CountData:
    """Random clouds of different sizes."""

    clouds: Annotated[int, COUNT] = 48
    """Clouds of each split."""
    largest: Annotated[int, COUNT] = 40
    """Points of the largest cloud."""
    workers: Annotated[int, NATURAL] = 0
    """Processes that make clouds."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclass(frozen=True)
class CountConfig(RunConfig):
    """Train a network that counts points."""

    data: CountData = field(default_factory=CountData)
    """The clouds."""

    @property
    def data_name(self) -> str:
        return "random-clouds"


class RandomClouds:
    """The clouds of a split: see `pointmix.data.source.Source`."""

    classes: list[str] = []

    def __init__(self, data: CountData, *, seed: int) -> None:
        self.seed = seed
        self.targets = np.random.default_rng(seed).integers(4, data.largest + 1, data.clouds)

    def read(self, index: int) -> PointSet:
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        return PointSet.from_points(torch.rand(int(self.targets[index]), 3, generator=generator))

    def name(self, index: int) -> str:
        return f"cloud {index}"


@dataclass(frozen=True)
class CountSplits:
    train: BatchLoader[PointSet]
    val: BatchLoader[PointSet] | None
    test: BatchLoader[PointSet]


def same(points: PointSet) -> PointSet:
    return points


def loader(
    data: CountData, split_seed: int, batches: EpochBatches | PartBatches, seed: int | None = None
) -> BatchLoader[PointSet]:
    source = RandomClouds(data, seed=split_seed)
    dataset = SourceDataset(source=source, indices=np.arange(data.clouds), transform=same, seed=seed)
    join = partial(collate, join=join_clouds)
    return BatchLoader(dataset=dataset, batches=batches, workers=data.workers, strict=True, collate=join)


def count_loss(model: nn.Module, batch: CountBatch) -> Tensor:
    points, counts = batch
    return F.smooth_l1_loss(model(points)[:, 0].float(), counts.float())


class CountError(SumMetric[CountBatch]):
    """Mean absolute error."""

    def __init__(self) -> None:
        super().__init__(2)

    def batch_sums(self, model: nn.Module, batch: CountBatch) -> Tensor:
        points, counts = batch
        error = (model(points)[:, 0].float() - counts).abs()  # (B,)
        return torch.stack([error.sum(), error.new_tensor(len(error))])

    def from_sums(self, sums: Tensor) -> Metrics:
        error, clouds = sums.tolist()
        if clouds == 0:
            raise ValueError("nothing to evaluate: the loader gave no clouds")
        return {"mae": error / clouds}


class CountPredictor:
    """A row for each file: the number of points that the network sees, and the true one."""

    columns = ("predicted", "points")

    def __init__(self, model: nn.Module) -> None:
        self.model, self.device = model, next(model.parameters()).device

    def predict(self, path: str) -> list[tuple[str, ...]]:
        points = PointSet.from_points(*read_cloud(path)).to(self.device)
        return [(f"{self.model(points)[0, 0].item():.1f}", str(len(points.pos)))]

    def finish(self) -> list[str]:
        return []


@register_task("count_points")
class CountPoints(Task[CountConfig, CountData, CountSplits, CountBatch]):
    config = CountConfig
    unit = "clouds"
    scores = {"mae": Score("MAE", larger_is_better=False)}
    monitor = "mae"

    def build_splits(self, cfg: CountConfig, *, rank: int, world_size: int) -> CountSplits:
        place = {"rank": rank, "world_size": world_size}
        size = {"size": cfg.data.clouds, "batch_size": cfg.batch_size}
        return CountSplits(
            train=loader(cfg.data, 0, EpochBatches(**size, seed=cfg.seed, **place), seed=cfg.seed),
            val=loader(cfg.data, 1, PartBatches(**size, **place)),
            test=loader(cfg.data, 2, PartBatches(**size, **place)),
        )

    def info(self, cfg: CountConfig, splits: CountSplits) -> Info:
        return {"data": asdict(cfg.data)}

    def build_model(self, info: Info) -> nn.Module:
        return create_model(info["name"], num_classes=1, in_chans=0, coord_dims=3, **info["kwargs"])

    def example_input(self, info: Info) -> PointSet:
        return PointSet.from_points(torch.rand(8, 3))

    def build_loss(self, cfg: CountConfig, info: Info) -> Callable[[nn.Module, CountBatch], Tensor]:
        return count_loss

    def build_metric(self, info: Info) -> CountError:
        return CountError()

    def num_samples(self, batch: CountBatch) -> int:
        return len(batch[1])

    def pictures(self, model: nn.Module, splits: CountSplits, info: Info, test: Metrics) -> dict[str, Picture]:
        @torch.no_grad()
        def draw(path: Path) -> None:
            from matplotlib.figure import Figure

            points, counts = next(iter(splits.test))
            predicted = model(points.to(next(model.parameters()).device))[:, 0].cpu()
            figure = Figure()
            figure.subplots().scatter(counts, predicted)
            figure.savefig(path)

        return {"counts.png": draw}

    def measurements(
        self, model: nn.Module, info: Info, data: CountData, args: Namespace
    ) -> Iterator[Measurement[CountBatch]]:
        test = loader(data, 2, PartBatches(size=data.clouds, batch_size=args.batch_size))
        yield Measurement(model, test, CountError(), settings={})

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> CountPredictor:
        return CountPredictor(model)
