"""Evaluation of trained detectors: the rows of pointmix evaluate, its tables and files."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from pointmix.data.detect.config import DetectDataConfig
from pointmix.data.detect.resolve import resolve
from pointmix.data.detect.sample import DetectBatch
from pointmix.data.images.config import MASK_KINDS
from pointmix.tasks.classification.tables import curve_table, write_curve
from pointmix.tasks.classification.task import check_classes
from pointmix.tasks.detect.metrics import DetectionMetric
from pointmix.tasks.detect.results import write_results as write_coco
from pointmix.tasks.detect.tables import ap_table, class_table, write_csv
from pointmix.tasks.protocols import Info, Measurement, Metrics, Score
from pointmix.tasks.tables import write_results
from pointmix.utils.atomic import check_place
from pointmix.utils.ranges import FRACTION_ABOVE_0, check_choice

if TYPE_CHECKING:
    from rich.console import Console


def measurements(
    model: nn.Module, info: Info, data: DetectDataConfig, args: Namespace
) -> Iterator[Measurement[DetectBatch]]:
    """The rows of one network, one for each share of --keep; wrong flags are refused before the first.

    Args:
        data: what to evaluate on.
        args: has the flags of `add_arguments`.

    Raises:
        ValueError: a flag is out of range or does not suit the others.
    """
    data = resolve(data)
    if args.mask is not None:
        if args.keep is None:
            raise ValueError(f"--mask {args.mask} is for --keep; give both")
        check_choice("--", known=MASK_KINDS, mask=args.mask)
    if args.keep is not None:
        FRACTION_ABOVE_0.check("--", keep=args.keep)
    if args.coco_json is not None:
        networks = len(getattr(args, "runs", ())) + (getattr(args, "run", None) is not None)
        if len(args.keep or [1.0]) > 1 or networks > 1:
            raise ValueError(f"--coco_json {args.coco_json} is for one network and one share of --keep")
        check_place(args.coco_json)
    return (_measurement(model, info, data, keep, args) for keep in args.keep or [None])


class SavedMetric(DetectionMetric):
    """A metric that writes the detections, too.

    Args:
        num_classes, category_ids: of the data.
        path: of COCO's results.
    """

    def __init__(self, num_classes: int, *, category_ids: Sequence[int], path: str) -> None:
        super().__init__(num_classes)
        self.category_ids, self.path = category_ids, path

    def compute(self) -> Metrics:
        metrics = super().compute()
        write_coco(self.counted(), self.category_ids, self.path)
        return metrics


def _measurement(
    model: nn.Module, info: Info, data: DetectDataConfig, keep: float | None, args: Namespace
) -> Measurement[DetectBatch]:
    if keep is not None:
        data = dataclasses.replace(data, keep_ratio=keep, mask=args.mask or data.mask)
    from pointmix.data.detect.splits import build_detect_test

    test, source = build_detect_test(data)
    check_classes(info, list(source.classes))
    classes, ids = info["classes"], [int(number) for number in source.category_ids]
    metric = DetectionMetric(len(classes))
    if args.coco_json is not None:
        metric = SavedMetric(len(classes), category_ids=ids, path=args.coco_json)
    settings = {"keep": keep, "mask": None if keep is None else data.mask, "classes": classes, "category_ids": ids}
    settings["has_masks"] = info["has_masks"]
    return Measurement(model, test, metric, settings)


def show_evaluation(
    results: list[Metrics], scores: Mapping[str, Score], unit: str, args: Namespace, console: Console
) -> None:
    """Print the curve over --keep, or AP by class and over all."""
    count = f"{results[0][unit]} test {unit}"
    if args.keep is not None:
        shown = {key: score for key, score in scores.items() if all(key in result for result in results)}
        console.print(curve_table(results, shown, title=f"{count}, {curve_title(results)}"))
    else:
        for result in results:
            console.print(class_table(result, result["classes"], title=f"{result['name']}, by class"))
        name = "" if len(results) > 1 else f"{results[0]['name']} on "
        console.print(ap_table(results, f"{name}{count}"))
    for name in sorted({r["name"] for r in results if r["has_masks"] and "mask_ap" not in r}):
        why = "the data have no masks, so boxes alone are compared"
        console.print(f"{name}: {why}", markup=False, highlight=False, soft_wrap=True)
    if args.coco_json is not None:
        console.print(f"detections in {args.coco_json}", markup=False, highlight=False, soft_wrap=True)


def save_evaluation(results: list[Metrics], scores: Mapping[str, Score], unit: str, args: Namespace) -> list[Path]:
    """Write the results to args.out: with --keep the curve of the box AP as PNG, CSV and JSON, without it as JSON or,
    by the name of the file, as a CSV with a row for each class; returns the files written."""
    out = Path(args.out)
    if args.keep is not None:
        shown = [key for key in scores if any(key in result for result in results)]
        columns = ("name", "model", "weights", "mask", "keep", *shown, unit)
        score = ("box_ap", scores["box_ap"])
        return write_curve(results, out, score=score, columns=columns, title=curve_title(results), with_chance=False)
    if out.suffix.lower() == ".csv":
        write_csv(results, out)
        return [out]
    return write_results(results, out)


def curve_title(results: list[Metrics]) -> str:
    """What hides pixels in a curve."""
    return f"visible pixels under masks of {', '.join(sorted({result['mask'] for result in results}))}"
