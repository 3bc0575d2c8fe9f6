"""Evaluation of trained segmenters: the rows of pointmix evaluate, its tables and files."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from pointmix.data.images.config import MASK_KINDS
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.resolve import is_cloud, resolve
from pointmix.data.segment.sample import SegmentBatch
from pointmix.tasks.classification.tables import curve_table, write_curve
from pointmix.tasks.classification.task import check_classes
from pointmix.tasks.protocols import Info, Measurement, Metrics, Score
from pointmix.tasks.segment.inference import choose
from pointmix.tasks.segment.inference.base import Infer
from pointmix.tasks.segment.inference.images import ImageInfer
from pointmix.tasks.segment.keep import Kept
from pointmix.tasks.segment.metrics import PartMetric, SegmentationMetric
from pointmix.tasks.segment.tables import category_table, class_table
from pointmix.tasks.tables import result_table, write_results
from pointmix.utils.ranges import FRACTION_ABOVE_0, check_choice

if TYPE_CHECKING:
    from rich.console import Console

CURVE = ("miou", "macc", "aacc")


def measurements(
    model: nn.Module, info: Info, data: SegmentDataConfig, args: Namespace
) -> Iterator[Measurement[SegmentBatch]]:
    """The rows of one network, one for each share of --keep; wrong flags are refused before the first.

    Args:
        data: what to evaluate on.
        args: has the flags of `add_arguments`.

    Raises:
        ValueError: a flag is out of range or does not suit the data.
    """
    data = resolve(data)
    if args.mask is not None:
        if args.keep is None or is_cloud(data):
            raise ValueError(f"--mask {args.mask} is for --keep on images; clouds lose random points")
        check_choice("--", known=MASK_KINDS, mask=args.mask)
    if args.keep is not None:
        FRACTION_ABOVE_0.check("--", keep=args.keep)
        data = dataclasses.replace(data, keep_ratio=1.0)
    infer = choose.choose_infer(data, args)
    if isinstance(infer, ImageInfer) and infer.resizes and min(args.keep or [1.0]) < 1:
        what = choose.what_resizes(data)
        raise ValueError(f"{what} resizes or divides images; those of --keep are taken whole, in their own size")
    return (_measurement(model, info, data, keep, infer, args) for keep in args.keep or [1.0])


def _measurement(
    model: nn.Module, info: Info, data: SegmentDataConfig, keep: float, infer: Infer, args: Namespace
) -> Measurement[SegmentBatch]:
    from pointmix.data.segment.splits import build_segments_test

    test, source = build_segments_test(data, extent=info.get("extent"))
    check_classes(info, list(source.classes))
    kind = None if is_cloud(data) or args.keep is None else args.mask or data.mask
    loader = test if args.keep is None else Kept(test, keep, kind=kind or data.mask, patch=data.mask_patch)
    flags = {name: getattr(args, name) for name in (*choose.IMAGE_FLAGS, "votes", "fast")}
    settings = {"keep": keep, "mask": kind, **flags, "classes": info["classes"]}
    return Measurement(model, loader, build_metric(info, infer), settings)


def build_metric(info: Info, infer: Infer) -> SegmentationMetric:
    """The metric of labels, or of parts of objects with categories, by an inference."""
    if info["categories"] is None:
        return SegmentationMetric(len(info["classes"]), infer=infer.most_likely)
    return PartMetric(len(info["classes"]), categories=info["categories"], infer=infer)


def show_evaluation(
    results: list[Metrics], scores: Mapping[str, Score], unit: str, args: Namespace, console: Console
) -> None:
    """Print the curve over --keep, or the scores by class and over all."""
    if args.keep is not None:
        title = f"{results[0][unit]} test {unit}, {curve_title(results)}"
        console.print(curve_table(results, {key: scores[key] for key in CURVE}, title=title))
        return
    parts = "per_category" in results[0]
    for r in results:
        console.print(class_table(r, r["classes"], title=f"{r['name']}, by class"))
        if parts:
            console.print(category_table(r, title=f"{r['name']}, by category"))
    shown = {**PartMetric.part_scores, **scores} if parts else scores
    console.print(result_table(results, shown, unit, note=described(args)))


def save_evaluation(results: list[Metrics], scores: Mapping[str, Score], unit: str, args: Namespace) -> list[Path]:
    """Write the results to args.out, with --keep the curve of the mIoU, too; returns the files written."""
    if args.keep is None:
        return write_results(results, args.out)
    columns = ("name", "model", "weights", "mask", "keep", *CURVE, unit)
    score = ("miou", scores["miou"])
    title = curve_title(results)
    return write_curve(results, Path(args.out), score=score, columns=columns, title=title, with_chance=False)


def curve_title(results: list[Metrics]) -> str:
    """What hides points in a curve; its scores are those of the points that are left."""
    kinds = sorted({r["mask"] for r in results if r["mask"]})
    return f"visible points under masks of {', '.join(kinds)}" if kinds else "random points kept"


def described(args: Namespace) -> str:
    """The flags of the inference, as the end of a title."""
    texts = []
    if args.sliding is not None:
        texts.append("windows of {} x {}".format(*args.sliding))
    if args.scales is not None:
        texts.append(f"scales {', '.join(f'{scale:g}' for scale in args.scales)}")
    texts += ["flip"] if args.flip else []
    texts += [f"{args.votes} votes"] if args.votes > 1 else []
    texts += ["one point a grid cell"] if args.fast else []
    return "".join(f", {text}" for text in texts)
