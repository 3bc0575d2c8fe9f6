"""How fast are we on large sets? One cloud of up to a million points, one image of up to a million pixels; inference.

python benchmarks/large.py
python benchmarks/large.py --rows cloud --points 100000 1000000 --csv mine.csv

Rows:
cloud   coc_tiny on a cloud as in the README, of points in a cube ("cube") or on the surfaces of a room with boxes in it
        ("room"), with anchors and centers by farthest points ("fps") or by the cells of a grid ("grid")
image   hcformer_tiny on a square image: all of it on its grid ("whole"), all pixels as points of a partial image
        ("partial"), and a random quarter of its patches of 4x4 pixels ("quarter")
Columns: seconds of a call, median of calls in turns with the other rows of the same number of points; the share of the
first of them; the exponent of time over points between the smallest number and this one.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from common import RESULTS, in_turns, partly, relieve, save, show
from machine import table_name


def room(n: int):
    """Points on the walls, floor and ceiling of a room of 8 x 6 x 3 m and of 20 boxes in it, with 2 mm of noise."""
    import torch

    size = torch.tensor([8.0, 6.0, 3.0])
    low, extent = torch.rand(20, 3) * size * 0.8, 0.2 + torch.rand(20, 3)
    box, boxed = torch.randint(20, (n,)), torch.rand(n, 1) < 0.4
    x = torch.rand(n, 3).scatter(1, torch.randint(3, (n, 1)), torch.randint(2, (n, 1)).float())  # on a unit cube
    return torch.where(boxed, low[box] + x * extent[box], x * size) + 0.002 * torch.randn(n, 3)


def of_cloud(x, device: str = "cpu", **settings: object) -> Callable[[], None]:
    """Inference of one cloud, points (N, 3), with a network as in the README."""
    import torch

    import pointmix

    torch.manual_seed(0)
    options = dict(num_classes=15, in_chans=0, coord_dims=3, stem=(4, 2, 0), windows_per_side=(4, 2, 1, 1))
    model = pointmix.create_model("coc_tiny", **options, **settings).to(device).eval()
    points = pointmix.PointSet.from_points(x).to(device)

    def run() -> None:
        with torch.inference_mode():
            model(points)

    return run


def clouds(n: int) -> dict[str, Callable[[], object]]:
    import torch

    sets = {"cube": torch.rand(n, 3), "room": room(n)}
    pairs = [(sampling, name) for sampling in ("fps", "grid") for name in sets]
    return {f"{name}, {sampling}": of_cloud(sets[name], sampling=sampling) for sampling, name in pairs}


def images(n: int) -> dict[str, Callable[[], object]]:
    import torch

    import pointmix

    side = round(math.sqrt(n))
    model = pointmix.create_model("hcformer_tiny").eval()
    x = torch.rand(1, 3, side, side)
    whole = pointmix.PointSet.from_images(list(x), torch.ones(1, side, side, dtype=torch.bool))
    quarter = partly(x)
    return {"whole": lambda: model(x), "partial": lambda: model(whole), "quarter": lambda: model(quarter)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=("cloud", "image"), default=["cloud", "image"])
    parser.add_argument("--points", nargs="+", type=int, default=[100_000, 300_000, 1_000_000], help="of each cloud")
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024], help="of each image, in pixels")
    parser.add_argument("--seconds", type=float, default=5, help="time for each row")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--csv", type=Path, help="by default benchmarks/results/large_MACHINE.csv")
    args = parser.parse_args()
    args.device = "cpu"
    relieve()

    import torch

    args.csv = args.csv or RESULTS / table_name("large", args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows, first = [], {}
    sizes = {"cloud": args.points, "image": [side**2 for side in args.sides]}
    for row in args.rows:
        for n in sorted(sizes[row]):
            tasks = {"cloud": clouds, "image": images}[row](n)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                times = in_turns(list(tasks.values()), args.seconds)
            for what, taken in zip(tasks, times, strict=True):
                least, before = first.setdefault((row, what), (n, taken))
                exponent = round(math.log(taken / before) / math.log(n / least), 3) if n > least else ""
                share = round(taken / times[0], 3)
                rows.append({"row": row, "what": what, "points": n, "s": round(taken, 3), "share": share})
                rows[-1]["exponent"] = exponent
    show(f"{'bf16' if args.bf16 else 'float32'}, {args.threads} threads", rows, left=("row", "what"))
    save(args, rows, ("row", "what", "points"), bf16=args.bf16)
    return 0


if __name__ == "__main__":
    sys.exit(main())
