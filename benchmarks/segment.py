"""What does a segmenter cost? Semantic FPN with 150 classes, against the same network on full maps.

python benchmarks/segment.py
python benchmarks/segment.py --models coc_tiny --batch 4 --rows memory

Rows: "memory", MiB that a training step of --batch images of --size pixels adds, with "ours" and "literal", the network
and its loss in convolutions and interpolation with logits at full resolution; "step", their times in turns, at a
quarter of the batch; "quarter", a random quarter of the 16x16 patches visible, in inference and in training, against
whole images; "cloud", labels of a ground of a quarter, half and a whole million points, in overlapping boxes of about
16,000, and the exponent of the time; "image", labels of 4000 x 3000 pixels, whole and in windows of 512.
Every memory is of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable

from common import added, apart, finish, in_turns, partly, save, show, started

ROWS = ("memory", "step", "quarter", "cloud", "image")
CLOUDS = (250_000, 500_000, 1_000_000)


def step(name: str, kind: str, batch: int, args: argparse.Namespace, *, infer: bool = False) -> Callable[[], None]:
    """A training step, or a forward pass, of "ours", "literal" or ours on a "quarter"."""
    import torch
    from segment_literal import LiteralSegmenter

    import pointmix
    from pointmix.data.segment.sample import SegmentBatch
    from pointmix.tasks.segment.loss import LossConfig, SegmentationLoss

    torch.manual_seed(0)
    settings = dict(centers_per_side=(2, 2, 2, 2)) if name.startswith("coc") else {}
    network = pointmix.create_segmenter(name, 150, **settings).to(args.device).train(not infer)
    images = torch.randn(batch, 3, args.size, args.size)
    points = partly(images, patch=16) if kind == "quarter" else pointmix.PointSet.from_images(images)
    points = points.to(args.device)
    labels = torch.randint(150, (len(points.feat),), device=args.device)
    loss, literal, images = SegmentationLoss(150, LossConfig()), LiteralSegmenter(network), images.to(args.device)
    literal.train(not infer)

    def run() -> None:
        if infer:
            with torch.inference_mode():
                network(points)
            return
        if kind == "literal":
            literal.loss(images, labels.view(batch, args.size, args.size)).backward()
        else:
            loss(network, SegmentBatch(points, labels)).backward()
        network.zero_grad()

    return run


def labels(name: str, kind: str, args: argparse.Namespace) -> Callable[[], None]:
    """Labels of a large input: "whole" or "windows" of an image, or a number of points."""
    from functools import partial

    import torch

    import pointmix
    from pointmix.data.segment.clouds.crops import box_cover
    from pointmix.tasks.segment.inference.clouds import CloudInfer
    from pointmix.tasks.segment.inference.images import ImageInfer

    torch.manual_seed(0)
    if kind.isdigit():
        number = int(kind)
        side = (number / 20) ** 0.5  # 20 points a square meter
        pos = torch.rand(number, 3, dtype=torch.float64) * torch.tensor([side, side, 2.0])
        points = pointmix.PointSet.from_points(pos, torch.rand(number, 3))
        network = pointmix.create_segmenter(name, 13, coord_dims=3, stem=(4, 2, 0))
        cover = partial(box_cover, side=28.0, up="z", spacing=0.5)
        infer = CloudInfer(normalize=centered, cover=lambda p: cover(p.pos))
    else:
        points = pointmix.PointSet.from_images(torch.rand(1, 3, 3000, 4000))
        network = pointmix.create_segmenter(name, 150)
        infer = ImageInfer(window=(512, 512)) if kind == "windows" else ImageInfer()
    network, points = network.to(args.device).eval(), points.to(args.device)

    def run() -> None:
        with torch.inference_mode():
            infer.labels(network, points)

    return run


def centered(points):
    """One crop in single precision around its middle."""
    from dataclasses import replace

    return replace(points, pos=(points.pos - points.pos.mean(0)).float())


def seconds(task: Callable[[], None], device: str) -> float:
    begin = time.perf_counter()
    task()
    finish(device)
    return time.perf_counter() - begin


def large(name: str, kinds: list[str], args: argparse.Namespace) -> list[dict[str, object]]:
    """Seconds and peak memory of labels, and for clouds the exponent of the time between neighboring sizes."""
    rows: list[dict[str, object]] = []
    before = 0.0
    for kind in kinds:
        task = labels(name, kind, args)
        if kind == kinds[0]:
            task()  # numba compiles
        took, peak = seconds(task, args.device), apart(*sys.argv, "--memory-of", name, kind)
        what = f"labels of {int(kind):,} points" if kind.isdigit() else f"labels of 4000 x 3000 pixels, {kind}"
        row = {"model": name, "row": what, "ours": f"{took:.1f} s", "other": f"{peak:.0f} MiB"}
        if kind.isdigit() and before:
            row["ratio"] = f"exponent {math.log2(took / before):.2f}"
        rows.append(row)
        before = took
    return rows


def memory(name: str, args: argparse.Namespace) -> dict[str, object]:
    ours, literal = (apart(*sys.argv, "--memory-of", name, kind) for kind in ("ours", "literal"))
    return {"ours": f"{ours:.0f} MiB", "other": f"{literal:.0f} MiB", "ratio": round(ours / literal, 3)}


def times(name: str, kinds: tuple[str, str], args: argparse.Namespace, *, infer: bool) -> dict[str, object]:
    batch = max(args.batch // 4, 1)
    first, second = in_turns([step(name, k, batch, args, infer=infer) for k in kinds], args.seconds, args.device)
    return {"ours": f"{first:.3f} s", "other": f"{second:.3f} s", "ratio": round(first / second, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["coc_tiny", "coc_small"], help="of the CoC family")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--size", type=int, default=512, help="image side in pixels")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.set_defaults(batch=8)
    args = started(parser, "segment")
    if args.memory_of:
        name, kind = args.memory_of
        task = step(name, kind, args.batch, args) if kind in ("ours", "literal") else labels(name, kind, args)
        print(json.dumps(added(task, args.device)))
        return 0
    rows = []
    for name in args.models:
        if "memory" in args.rows:
            rows.append({"model": name, "row": "memory of a step against full maps"} | memory(name, args))
        if "step" in args.rows:
            found = times(name, ("ours", "literal"), args, infer=False)
            rows.append({"model": name, "row": "time of a step against full maps"} | found)
        if "quarter" in args.rows:
            for infer in (True, False):
                what = "inference" if infer else "training"
                found = times(name, ("quarter", "ours"), args, infer=infer)
                rows.append({"model": name, "row": f"quarter of the patches, {what}"} | found)
        if "cloud" in args.rows:
            rows += large(name, [str(number) for number in CLOUDS], args)
        if "image" in args.rows:
            rows += large(name, ["whole", "windows"], args)
    show(f"{args.size} pixels, batch {args.batch}, {args.device}", rows, left=("model", "row"))
    save(args, rows, ("model", "row"), size=args.size, batch=args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
