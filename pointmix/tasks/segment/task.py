"""Segmentation: a label for every pixel or point, of images, partial images, depth images and clouds."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from pointmix.data.images.config import filled
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud, is_sparse, resolve
from pointmix.data.segment.sample import SegmentBatch
from pointmix.data.segment.source import SEGMENT_SOURCES
from pointmix.pointset import PointSet
from pointmix.tasks.base import Command, Task, register_task
from pointmix.tasks.checks import try_input
from pointmix.tasks.class_weights import class_weights
from pointmix.tasks.classification.task import MAX_CHANNELS, are_numbers, check_key, is_whole
from pointmix.tasks.clouds import check_extent
from pointmix.tasks.config import as_plain
from pointmix.tasks.page import explain_backbone
from pointmix.tasks.protocols import Info, Measurement, Metrics, Picture
from pointmix.tasks.segment import evaluation, files, flags, predictor
from pointmix.tasks.segment.config import SegmentConfig
from pointmix.tasks.segment.inference.choose import choose_infer
from pointmix.tasks.segment.loss import SegmentationLoss
from pointmix.tasks.segment.metrics import SegmentationMetric
from pointmix.tasks.segment.pictures import color_scale, draw_predictions
from pointmix.tasks.segment.tables import category_table, class_table
from pointmix.utils.messages import counted

if TYPE_CHECKING:
    from rich.console import Console

    from pointmix.data.segment.splits import SegmentSplits

MAX_DIMS = 8
PREDICTIONS = "predictions.png"
EXAMPLE_POINTS = 4096  # of a cloud, where data.max_points does not say how many


@register_task("segment")
class Segment(Task[SegmentConfig, SegmentDataConfig, "SegmentSplits", SegmentBatch]):
    """Images or clouds to a class for each of their points.

    The info has "classes" (names in the order of the labels), "palette" (a color for each, or None), "categories" (of
    objects: name -> labels of its parts, or None), "in_chans", "coord_dims", "class_weights" (of the loss, or None) and
    "extent" (of the training clouds, or None).
    """

    config = SegmentConfig
    unit = "samples"
    scores = SegmentationMetric.scores
    monitor = "miou"
    pipeline_tag = "image-segmentation"

    def build_splits(self, cfg: SegmentConfig, *, rank: int, world_size: int) -> SegmentSplits:
        from pointmix.data.segment.splits import build_segments

        return build_segments(cfg.data, batch_size=cfg.batch_size, seed=cfg.seed, rank=rank, world_size=world_size)

    def info(self, cfg: SegmentConfig, splits: SegmentSplits) -> Info:
        count = len(splits.classes)
        weights = class_weights(cfg.loss.class_weights, counts=splits.label_counts, classes=count)
        return {
            "classes": list(splits.classes),
            "palette": None if splits.palette is None else [list(color) for color in splits.palette],
            "categories": splits.categories,
            "in_chans": splits.in_chans,
            "coord_dims": splits.coord_dims,
            "class_weights": weights,
            "extent": splits.extent,
            "data": as_plain(splits.config),
        }

    def build_model(self, info: Info) -> nn.Module:
        from pointmix.models.segmenter import create_segmenter

        given: dict[str, Any] = {"num_classes": len(info["classes"]), "in_chans": info["in_chans"]}
        given["categories"] = len(info["categories"] or ())
        if info["coord_dims"] != 2:  # networks of timm do not take it
            given["coord_dims"] = info["coord_dims"]
        return create_segmenter(info["name"], **given, **info["kwargs"])

    def example_input(self, info: Info) -> PointSet:
        cfg, channels, dims = self.data_config(info), info["in_chans"], info["coord_dims"]
        if is_cloud(cfg):
            number = cfg.max_points or EXAMPLE_POINTS
            points = torch.linspace(-1, 1, number * dims).view(dims, number).t().contiguous()  # (N, D)
            return PointSet.from_points(points, points.new_zeros(number, channels))
        rows, columns = filled(cfg.crop_size)
        return PointSet.from_batch(torch.zeros(1, channels, rows, columns))

    def check_model(self, model: nn.Module, cfg: SegmentConfig, info: Info) -> None:
        blank, data = self.example_input(info), self.data_config(info)
        if is_cloud(data):
            what = f"clouds of {len(blank.pos)} points with {info['in_chans']} features"
        else:
            what = "images of {}x{}x{}".format(info["in_chans"], *filled(data.crop_size))
        if is_sparse(data) and not is_cloud(data):
            what += " with hidden pixels (data.keep_ratio, data.rgbd)"
            blank = blank.subset(torch.arange(0, len(blank.pos), 2))
        category = () if info["categories"] is None else (torch.zeros(1, dtype=torch.int64),)
        sizes: dict[str, Any] = {"classes": len(info["classes"]), "rows": len(blank.pos)}
        try_input(model, info["name"], blank, what=what, **sizes, more=category, single=cfg.batch_size == 1)

    def build_loss(self, cfg: SegmentConfig, info: Info) -> SegmentationLoss:
        return SegmentationLoss(len(info["classes"]), cfg.loss, weights=info["class_weights"])

    def build_metric(self, info: Info) -> SegmentationMetric:
        return evaluation.build_metric(info, choose_infer(self.data_config(info)))

    def num_samples(self, batch: SegmentBatch) -> int:
        return batch.points.num_sets

    def describe_data(self, cfg: SegmentConfig, info: Info) -> str:
        return f"{cfg.data_name}, {counted(len(info['classes']), 'class')}"

    def report(self, metrics: Metrics, console: Console) -> None:
        test = metrics["test"]
        if "confusion" in test:
            console.print(class_table(test, metrics["info"]["classes"]))
        if "per_category" in test:
            console.print(category_table(test))

    def pictures(self, model: nn.Module, splits: SegmentSplits, info: Info, test: Metrics) -> dict[str, Picture]:
        cfg = splits.config
        return {PREDICTIONS: lambda path: draw_predictions(path, model, choose_infer(cfg), splits.test, cfg, info)}

    # ---- trained networks -------------------------------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        for key in ("classes", "palette", "categories", "in_chans", "coord_dims", "class_weights"):
            if key not in info:
                raise ValueError(f"its metadata has no {key!r}")
        names = info["classes"]
        are_names = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
        check_key(info, "classes", are_names, "a list of names")
        number = len(names)
        check_key(info, "in_chans", _within(info["in_chans"], 0, MAX_CHANNELS), f"channels up to {MAX_CHANNELS}")
        check_key(info, "coord_dims", _within(info["coord_dims"], 1, MAX_DIMS), f"coordinates, 1 to {MAX_DIMS}")
        check_key(info, "palette", _is_palette(info["palette"], number), f"{number} colors, 0 to 255, or null")
        expected = f"names, and lists of labels below {number}, or null"
        check_key(info, "categories", _are_categories(info["categories"], number), expected)
        weights = info["class_weights"]
        right = weights is None or (are_numbers(weights) and len(weights) == number and min(weights) >= 0)
        check_key(info, "class_weights", right, f"{number} numbers from 0 on, or null")
        check_extent(info)
        check_key(info, "data", bool(info["data"]), "the settings of the data it was trained on")

    def data_config(self, info: Info) -> SegmentDataConfig:
        data = dict(info["data"])
        if isinstance(labels := data.get("label_map"), dict):  # JSON has texts for numbers
            data["label_map"] = {int(k) if re.fullmatch(r"-?\d{1,18}", str(k)) else k: v for k, v in labels.items()}
        return resolve(super().data_config(info | {"data": data}))

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        flags.add_arguments(parser, command)

    def measurements(
        self, model: nn.Module, info: Info, data: SegmentDataConfig, args: Namespace
    ) -> Iterator[Measurement[SegmentBatch]]:
        return evaluation.measurements(model, info, data, args)

    def show_evaluation(self, results: list[Metrics], args: Namespace, console: Console) -> None:
        evaluation.show_evaluation(results, self.scores, self.unit, args, console)

    def save_evaluation(self, results: list[Metrics], args: Namespace) -> list[Path]:
        return evaluation.save_evaluation(results, self.scores, self.unit, args)

    def input_kind(self, info: Info) -> Literal["image", "cloud"]:
        kind = SEGMENT_SOURCES.find(self.data_config(info).source).kind  # RGB-D frames are images, with --depth
        return "cloud" if kind == "cloud" else "image"

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> predictor.SegmentPredictor:
        return predictor.SegmentPredictor(model, info, self.data_config(info), args)

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        if run is None:
            raise ValueError(f"{self.name} has no networks by name; give a run with --run")
        (model, info), cfg = run, self.data_config(run[1])
        points = files.FileReader(cfg, args.run, args)(args.file).points
        colors: dict[str, Any] = {} if is_cloud(cfg) else color_scale(cfg)
        up = "-y" if cfg.rgbd == "cloud" else filled(cfg.up) if is_cloud(cfg) else "y"  # a camera's y points down
        explain_backbone(args, model, points, name=info["name"], up=up, **colors)


def _within(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and is_whole(value) and low <= value <= high


def _is_palette(value: object, number: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != number:
        return False
    return all(isinstance(c, list) and len(c) == 3 and all(_within(v, 0, 255) for v in c) for c in value)


def _are_categories(value: object, number: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not value:
        return False
    parts = value.values()
    return all(isinstance(p, list) and bool(p) and all(_within(v, 0, number - 1) for v in p) for p in parts)
