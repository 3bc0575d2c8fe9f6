"""Detection: boxes, masks and classes of the objects in images and partial images."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import padded, resolve
from pointmix.data.detect.sample import DetectBatch
from pointmix.data.detect.source import DetectSource
from pointmix.data.images.config import filled, keep_range
from pointmix.pointset import PointSet
from pointmix.tasks.base import Command, Task, register_task
from pointmix.tasks.classification.task import MAX_CHANNELS, check_key, is_whole
from pointmix.tasks.config import as_plain
from pointmix.tasks.detect import evaluation, flags, predictor
from pointmix.tasks.detect.checks import try_detector
from pointmix.tasks.detect.config import DetectConfig
from pointmix.tasks.detect.metrics import DetectionMetric
from pointmix.tasks.detect.pictures import draw_test_images
from pointmix.tasks.detect.tables import ap_table, class_table
from pointmix.tasks.page import explain_backbone
from pointmix.tasks.protocols import Info, Measurement, Metrics, Picture
from pointmix.utils.messages import counted

if TYPE_CHECKING:
    from rich.console import Console

    from pointmix.data.detect.splits import DetectSplits

PREDICTIONS = "predictions.png"


@register_task("detect")
class Detect(Task[DetectConfig, DetectDataConfig, "DetectSplits", DetectBatch]):
    """Images to boxes, masks and classes.

    The info has "classes" (names in the order of the labels), "category_ids" (number of each class in the files of the
    data), "in_chans", and "has_masks" (whether the network finds masks, and else boxes only).
    """

    config = DetectConfig
    unit = "images"
    scores = DetectionMetric.scores
    monitor = "box_ap"
    pipeline_tag = "object-detection"

    def build_splits(self, cfg: DetectConfig, *, rank: int, world_size: int) -> DetectSplits:
        from pointmix.data.detect.splits import build_detect

        splits = build_detect(cfg.data, batch_size=cfg.batch_size, seed=cfg.seed, rank=rank, world_size=world_size)
        for name, loader in (("validation", splits.val), ("test", splits.test)):  # without objects there is no AP
            if loader is not None:
                source = cast(DetectSource, loader.samples.source)
                if not any(map(source.has_objects, loader.samples.indices.tolist())):
                    raise ValueError(f"none of {len(loader.samples)} {name} images has an object, expected some")
        return splits

    def info(self, cfg: DetectConfig, splits: DetectSplits) -> Info:
        return {
            "classes": list(splits.classes),
            "category_ids": list(splits.category_ids),
            "in_chans": splits.in_chans,
            "has_masks": splits.has_masks,
            "data": as_plain(splits.config),
        }

    def build_model(self, info: Info) -> nn.Module:
        from pointmix.models.detector import create_detector

        given = {"in_chans": info["in_chans"], "masks": info["has_masks"]}
        return create_detector(info["name"], len(info["classes"]), **given, **info["kwargs"])

    def example_input(self, info: Info) -> PointSet:
        return PointSet.from_batch(torch.zeros(1, info["in_chans"], *self._example_size(info)))

    def _example_size(self, info: Info) -> tuple[int, int]:
        """A crop of large-scale jitter, or a square image, padded."""
        cfg = self.data_config(info)
        side = min(filled(cfg.short_side), filled(cfg.max_side))
        rows, columns = cfg.crop_size or (side, side)
        return padded(rows, cfg.size_multiple), padded(columns, cfg.size_multiple)

    def check_model(self, model: nn.Module, cfg: DetectConfig, info: Info) -> None:
        blank, size, data = self.example_input(info), self._example_size(info), self.data_config(info)
        what = "images of {}x{}x{}".format(info["in_chans"], *size)
        if keep_range(data.keep_ratio) != (1, 1):
            what += " with hidden pixels (data.keep_ratio)"
            blank = blank.subset(torch.arange(0, len(blank.pos), 2))
        images = min(cfg.batch_size, 2)
        try_detector(model, info["name"], blank, size, what=what, masks=info["has_masks"], images=images)

    def build_loss(self, cfg: DetectConfig, info: Info) -> Callable[[nn.Module, DetectBatch], dict[str, Tensor]]:
        return detection_loss

    def build_metric(self, info: Info) -> DetectionMetric:
        return DetectionMetric(len(info["classes"]))

    def num_samples(self, batch: DetectBatch) -> int:
        return len(batch.sizes)

    def describe_data(self, cfg: DetectConfig, info: Info) -> str:
        what = "boxes and masks" if info["has_masks"] else "boxes"
        return f"{cfg.data_name}, {what} of {counted(len(info['classes']), 'class')}"

    def report(self, metrics: Metrics, console: Console) -> None:
        test = metrics["test"]
        if "box_ap_per_class" in test:
            console.print(class_table(test, metrics["info"]["classes"]))
            console.print(ap_table([{"name": "", **test}], "test data"))

    def pictures(self, model: nn.Module, splits: DetectSplits, info: Info, test: Metrics) -> dict[str, Picture]:
        return {PREDICTIONS: lambda path: draw_test_images(path, model, splits.test, splits.config, info)}

    # ---- trained networks -------------------------------------------------------------------------------------------

    def check_info(self, info: Info) -> None:
        for key in ("classes", "category_ids", "in_chans", "has_masks"):
            if key not in info:
                raise ValueError(f"its metadata has no {key!r}")
        names, numbers = info["classes"], info["category_ids"]
        are_names = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
        check_key(info, "classes", are_names, "a list of names")
        right = isinstance(numbers, list) and len(numbers) == len(names) and all(map(is_whole, numbers))
        right = right and len(set(numbers)) == len(numbers)
        check_key(info, "category_ids", right, f"{len(names)} different whole numbers")
        right = is_whole(info["in_chans"]) and 1 <= info["in_chans"] <= MAX_CHANNELS
        check_key(info, "in_chans", right, f"a number of channels up to {MAX_CHANNELS}")
        check_key(info, "has_masks", isinstance(info["has_masks"], bool), "true or false")
        check_key(info, "data", bool(info["data"]), "the settings of the data it was trained on")

    def data_config(self, info: Info) -> DetectDataConfig:
        return resolve(super().data_config(info))

    def add_arguments(self, parser: ArgumentParser, command: Command) -> None:
        flags.add_arguments(parser, command)

    def measurements(
        self, model: nn.Module, info: Info, data: DetectDataConfig, args: Namespace
    ) -> Iterator[Measurement[DetectBatch]]:
        return evaluation.measurements(model, info, data, args)

    def show_evaluation(self, results: list[Metrics], args: Namespace, console: Console) -> None:
        evaluation.show_evaluation(results, self.scores, self.unit, args, console)

    def save_evaluation(self, results: list[Metrics], args: Namespace) -> list[Path]:
        return evaluation.save_evaluation(results, self.scores, self.unit, args)

    def input_kind(self, info: Info) -> Literal["image"]:
        return "image"

    def build_predictor(self, model: nn.Module, info: Info, args: Namespace) -> predictor.DetectPredictor:
        return predictor.DetectPredictor(model, info, self.data_config(info), args)

    def explain(self, args: Namespace, run: tuple[nn.Module, Info] | None) -> None:
        if run is None:
            raise ValueError(f"{self.name} has no networks by name; give a run with --run")
        (model, info), cfg = run, self.data_config(run[1])
        points = predictor.FileReader(cfg, args.run, args.mask)(args.file).batch.points
        mean, std = (torch.tensor(filled(v)).expand(filled(cfg.in_chans)).tolist() for v in (cfg.mean, cfg.std))
        explain_backbone(args, model, points, name=info["name"], mean=mean, std=std)


def detection_loss(model: nn.Module, batch: DetectBatch) -> dict[str, Tensor]:
    """The losses that a detector has in training mode."""
    return model(batch.points, batch.sizes, batch.targets)
