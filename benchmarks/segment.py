"""What does a segmenter cost? Semantic FPN with 150 classes, against the same network on full maps.

python benchmarks/segment.py
python benchmarks/segment.py --models coc_tiny --batch 4 --rows memory

Rows: "memory", MiB that a training step of --batch images of --size pixels adds, with "ours" and "literal", the network
and its loss in convolutions and interpolation with logits at full resolution; "step", their times in turns, at a
quarter of the batch; "quarter", a random quarter of the 16x16 patches visible, in inference and in training, against
whole images. Every memory is of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from common import added, apart, in_turns, partly, save, show, started

ROWS = ("memory", "step", "quarter")


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
        print(json.dumps(added(step(*args.memory_of, args.batch, args), args.device)))
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
    show(f"{args.size} pixels, batch {args.batch}, {args.device}", rows, left=("model", "row"))
    save(args, rows, size=args.size, batch=args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
