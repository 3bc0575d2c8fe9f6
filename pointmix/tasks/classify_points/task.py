"""Classification of point clouds: overall accuracy, mean class accuracy, confusion matrix, voting."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.features import check_scale
from pointmix.data.clouds.resolve import check_keep_ratio, resolve
from pointmix.data.clouds.scale import ScaleCheck, measure
from pointmix.data.clouds.splits import PointSplits, build_points, build_points_test
from pointmix.data.clouds.transforms import is_voted, test_transform
from pointmix.io import is_image
from pointmix.pointset import PointSet
from pointmix.tasks.base import Command, register_task
from pointmix.tasks.checks import try_input
from pointmix.tasks.classification.loss import ClassificationLoss, loss_weights, shared_among_others
from pointmix.tasks.classification.metrics import Confusion
from pointmix.tasks.classification.predictor import ClassPredictor
from pointmix.tasks.classification.task import CLUSTERS, ClassificationTask, check_classes, check_key, one_of_each_class
from pointmix.tasks.classify_points.config import ClassifyPointsConfig
from pointmix.tasks.classify_points.explain import Trained, explain
from pointmix.tasks.classify_points.files import read_for, sampled_as
from pointmix.tasks.classify_points.flags import add_arguments
from pointmix.tasks.classify_points.metrics import VotedConfusion
from pointmix.tasks.classify_points.voting import Voting, check_votes, points_seen, voting
from pointmix.tasks.clouds import check_extent
from pointmix.tasks.config import as_plain
from pointmix.tasks.protocols import Info, Measurement, Metrics, Picture

if TYPE_CHECKING:
    from rich.console import Console

DIMS = 3  # of the positions
BLANK_POINTS = 1024  # of a blank cloud, where clouds have any number
CloudBatch = tuple[PointSet, Tensor]  # B clouds, targets int64 (B,)


@register_task("classify_points")
class ClassifyPoints(ClassificationTask[ClassifyPointsConfig, PointDataConfig, PointSplits, CloudBatch]):
    """Clouds in three dimensions to classes."""

    config = ClassifyPointsConfig
    unit = "clouds"
    scores = Confusion.scores
    monitor = "oa"
    curve_scores = ("oa", "macc")
    setting = "votes"

    def build_splits(self, cfg: ClassifyPointsConfig, *, rank: int, world_size: int) -> PointSplits:
        size = {"batch_size": cfg.batch_size, "eval_batch_size": cfg.batch_size}
        return build_points(cfg.data, **size, seed=cfg.seed, rank=rank, world_size=world_size)

    def info(self, cfg: ClassifyPointsConfig, splits: PointSplits) -> Info:
        return {
            "classes": list(splits.classes),
            "in_chans": splits.in_chans,
            "class_weights": loss_weights(cfg.loss, splits.train.samples, len(splits.classes)),
            "extent": splits.extent,
            "data": as_plain(splits.config),
        }

    def build_model(self, info: Info) -> nn.Module:
        from pointmix.models import create_model

        given = {"num_classes": len(info["classes"]), "in_chans": info["in_chans"], "coord_dims": DIMS}
        return create_model(info["name"], **given, **info["kwargs"])

    def example_input(self, info: Info) -> PointSet:
        number = self.data_config(info).most_points or BLANK_POINTS
        points = torch.linspace(-1, 1, number * DIMS).view(DIMS, number).t().contiguous()  # (N, D)
        return PointSet.from_points(points, points.new_zeros(number, info["in_chans"]))

    def check_model(self, model: nn.Module, cfg: ClassifyPointsConfig, info: Info) -> None:
        what = f"clouds of {len(self.example_input(info).pos)} points in {DIMS}-D with {info['in_chans']} features"
        blank, count = self.example_input(info), len(info["classes"])
        try_input(model, info["name"], blank, what=what, classes=count, single=cfg.batch_size == 1)

    def build_loss(self, cfg: ClassifyPointsConfig, info: Info) -> ClassificationLoss:
        count = len(info["classes"])
        smoothing = shared_among_others(cfg.mix.smoothing, count)
        return ClassificationLoss(count, smoothing=smoothing, weights=info["class_weights"])

    def build_metric(self, info: Info) -> Confusion:
        return VotedConfusion(len(info["classes"]), self.data_config(info))

    def more_tests(self, cfg: ClassifyPointsConfig, model: nn.Module) -> dict[str, nn.Module]:
        return {} if cfg.votes == 1 else {f"{cfg.votes} votes": voting(model, cfg.votes, resolve(cfg.data))}

    def pictures(self, model: nn.Module, splits: PointSplits, info: Info, test: Metrics) -> dict[str, Picture]:
        cfg = splits.config

        def draw(path: Any) -> None:
            from pointmix.explain.blocks import truth_and_guess
            from pointmix.explain.clouds import draw_clouds

            first = one_of_each_class(splits.test, PointSet.unbind, number=4)
            clouds = PointSet.cat(list(first.values())).to(next(model.parameters()).device)
            seen = voting(model, None, cfg)
            clouds = seen.part(clouds) if isinstance(seen, Voting) else clouds
            with torch.no_grad():
                predicted = [splits.classes[label] for label in model(clouds).argmax(1).tolist()]
            pairs = zip(first, predicted, strict=True)
            titles = [truth_and_guess(splits.classes[target], name) for target, name in pairs]
            draw_clouds(model, clouds, path, titles=titles, up=cfg.up or "z")

        return super().pictures(model, splits, info, test) | {CLUSTERS: draw}

    # ---- trained networks -------------------------------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        super().check_info(info)
        check_key(info, "data", bool(info["data"]), "the settings of the data it was trained on")
        check_extent(info)

    def data_config(self, info: Info) -> PointDataConfig:
        return resolve(super().data_config(info))

    def open_named(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        kwargs: dict[str, Any] | None = None,
        data: PointDataConfig | None = None,
    ) -> tuple[nn.Module, Info]:
        raise ValueError(f"a network of clouds by name, such as {name}, has no data settings; give a run with --run")

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        add_arguments(parser, command)

    def measurements(
        self, model: nn.Module, info: Info, data: PointDataConfig, args: Namespace
    ) -> Iterator[Measurement[CloudBatch]]:
        data, shares = resolve(data), args.keep or [1.0]
        for keep in shares:
            check_keep_ratio(keep, data)
        check_votes(args.votes, data)
        trained = self.data_config(info).features
        if data.features != trained:
            had, got = (", ".join(names) or "none" for names in (trained, data.features))
            raise ValueError(f"{info['path']} takes data.features {had}, got {got}")
        return (self._measurement(model, info, data, keep, args) for keep in shares)

    def _measurement(
        self, model: nn.Module, info: Info, cfg: PointDataConfig, keep: float, args: Namespace
    ) -> Measurement[CloudBatch]:
        names, votes = info["classes"], 1 if args.keep and args.votes is None else args.votes
        size = {"batch_size": args.batch_size, "keep_ratio": keep, "whole": not args.keep}
        if cfg.source in ("scanobjectnn", "folder") and cfg.classes is None:  # the test split may miss some classes
            test, classes = build_points_test(dataclasses.replace(cfg, classes=tuple(names)), **size)
            classes = getattr(test.samples.source, "stated_classes", None) or classes
        else:
            test, classes = build_points_test(cfg, **size)
        check_classes(info, classes)
        check_scale(cfg, test.samples.source, test.samples.indices, info.get("extent"))
        network = voting(model, votes, cfg, parts=is_voted(cfg) and not args.keep)
        about = {"keep": keep, "votes": votes, "points": points_seen(votes, cfg), "num_classes": len(names)}
        return Measurement(network, test, Confusion(len(names), unit=self.unit), {**about, "classes": names})

    def evaluation_note(self, results: list[Metrics]) -> str:
        votes = results[0]["votes"] or 1
        return f", {results[0]['points']}" + (f", {votes} votes" if votes > 1 else "")

    def report(self, metrics: Metrics, console: Console) -> None:
        super().report(metrics, console)
        console.print(f"tested on {points_seen(None, self.data_config(metrics['info']))}", markup=False)

    def curve_title(self, results: list[Metrics]) -> str:
        votes = results[0]["votes"]
        return "random points" + (f", {votes} votes" if votes > 1 else "")

    def transform(self, info: Info) -> Callable[[PointSet], PointSet]:
        return sampled_as(self.data_config(info))

    def input_kind(self, info: Info) -> Literal["cloud"]:
        return "cloud"

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> ClassPredictor:
        cfg = self.data_config(info)
        check_votes(args.votes, cfg)
        cfg = dataclasses.replace(cfg, nan=args.nan or cfg.nan)
        cfg = cfg if cfg.sampling == "fps" else dataclasses.replace(cfg, sampling="random")
        network, prepare = voting(model, args.votes, cfg), test_transform(cfg)
        check = ScaleCheck(info.get("extent"), cfg.normalize)

        def read(path: str) -> PointSet:
            points = read_for(path, cfg, run=info["path"], index=args.index, columns=args.columns)
            check(path, *measure(points.pos.numpy()))
            return prepare(points)

        def draw(inputs: list[Any], names: list[str], path: str) -> None:
            from pointmix.explain import draw_clouds

            points = PointSet.cat(inputs)
            points = network.part(points) if isinstance(network, Voting) else points
            draw_clouds(model, points, path, titles=names, up=cfg.up or "z", max_sets=len(inputs))

        return ClassPredictor(network, info, args, read=read, draw=draw)

    def reads(self, args: Namespace) -> bool:
        return bool(args.depth or args.intrinsics) or not is_image(args.file)

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        if run is None:
            explain(args, None)
        else:
            model, info = run
            explain(args, Trained(model.to(args.device), self.data_config(info), info))
