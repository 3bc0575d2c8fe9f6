"""A task from outside the package: a network counts the points of a cloud."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from pointmix import PointSet
from pointmix.data.clouds.loaders import join_clouds
from pointmix.data.dataset import SourceDataset, collate
from pointmix.data.loader import BatchLoader
from pointmix.data.sampler import EpochBatches, PartBatches
from pointmix.io import read_cloud
from pointmix.models import create_model
from pointmix.tasks.base import Task, register_task
from pointmix.tasks.config import RunConfig
from pointmix.tasks.metrics import SumMetric
from pointmix.tasks.protocols import Measurement, Score

TRAIN, VAL, TEST = range(3)
SMALLEST = 4


@dataclass(frozen=True)
class CountData:
    """Clouds of random points."""

    clouds: int = 48
    """Clouds of each split."""
    largest: int = 40
    """Points of the largest clouds; the smallest have 4."""


@dataclass(frozen=True)
class CountConfig(RunConfig):
    """Train a network to count the points of a cloud."""

    data: CountData = field(default_factory=CountData)
    """The clouds."""

    @property
    def data_name(self) -> str:
        return "counts"


class RandomClouds:
    """Clouds of 4 to `largest` points, drawn evenly in a cube; their targets are the numbers of points."""

    classes: tuple[str, ...] = ()

    def __init__(self, data: CountData, split: int):
        self.split = split
        self.targets = np.random.default_rng(split).integers(SMALLEST, data.largest, data.clouds, endpoint=True)

    def read(self, index: int) -> PointSet:
        generator = np.random.default_rng([self.split, index])
        return PointSet.from_points(generator.random((self.targets[index], 3), dtype=np.float32))

    def name(self, index: int) -> str:
        return f"cloud {index}"


def unchanged(points: PointSet) -> PointSet:
    return points


def count_loader(data: CountData, split: int, batches, seed=None) -> BatchLoader:
    source = RandomClouds(data, split)
    dataset = SourceDataset(source=source, indices=np.arange(data.clouds), transform=unchanged, seed=seed)
    join = partial(collate, join=join_clouds)
    return BatchLoader(dataset=dataset, batches=batches, workers=0, strict=True, collate=join)


@dataclass(frozen=True)
class CountSplits:
    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader


class CountError(SumMetric):
    """Mean absolute error of the counts."""

    def __init__(self):
        super().__init__(2)

    def batch_sums(self, model, batch):
        points, counts = batch
        error = (model(points)[:, 0].float() - counts).abs()  # (B,)
        return torch.stack([error.sum(), error.new_tensor(len(error))])

    def from_sums(self, sums):
        error, clouds = sums.tolist()
        return {"mae": error / clouds}


class CountPredictor:
    """Says how many points a file has, and how many the network counts."""

    columns = ("points", "counted")

    def __init__(self, model):
        self.model = model

    def predict(self, path):
        points = PointSet.from_points(*read_cloud(path))
        counted = self.model(points.to(next(self.model.parameters()).device))[0, 0].item()
        return [(str(len(points.pos)), f"{counted:.1f}")]

    def finish(self):
        return []


@register_task("count_points")
class CountPoints(Task):
    """Count the points of a cloud."""

    config = CountConfig
    unit = "clouds"
    scores = {"mae": Score("MAE", larger_is_better=False)}
    monitor = "mae"

    def build_splits(self, cfg, *, rank, world_size):
        size = dict(size=cfg.data.clouds, batch_size=cfg.batch_size, rank=rank, world_size=world_size)
        return CountSplits(
            train=count_loader(cfg.data, TRAIN, EpochBatches(**size, seed=cfg.seed), seed=cfg.seed),
            val=count_loader(cfg.data, VAL, PartBatches(**size)),
            test=count_loader(cfg.data, TEST, PartBatches(**size)),
        )

    def info(self, cfg, splits):
        return {"data": asdict(cfg.data)}

    def build_model(self, info):
        return create_model(info["name"], num_classes=1, in_chans=0, coord_dims=3, **info["kwargs"])

    def example_input(self, info):
        return PointSet.from_points(torch.rand(info["data"]["largest"], 3))

    def build_loss(self, cfg, info):
        def loss(model, batch):
            points, counts = batch
            return F.mse_loss(model(points)[:, 0].float(), counts.float())

        return loss

    def build_metric(self, info):
        return CountError()

    def num_samples(self, batch):
        return len(batch[1])

    def measurements(self, model, info, data, args):
        test = count_loader(data, TEST, PartBatches(size=data.clouds, batch_size=args.batch_size))
        yield Measurement(model, test, CountError(), settings={})

    def build_predictor(self, model, info, args):
        return CountPredictor(model)

    def pictures(self, model, splits, info, test):
        @torch.no_grad()
        def draw(path):
            from matplotlib.figure import Figure

            device = next(model.parameters()).device
            counts, counted = [], []
            for points, targets in splits.test:
                counts += targets.tolist()
                counted += model(points.to(device))[:, 0].tolist()
            figure = Figure()
            axes = figure.subplots()
            axes.scatter(counts, counted)
            axes.set(xlabel="points", ylabel="points counted by the network")
            figure.savefig(path)

        return {"counts.png": draw}
