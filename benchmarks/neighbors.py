"""How fast are farthest points, nearest neighbors and balls, and how do their times grow? One run, backends in turns.

python benchmarks/neighbors.py
python benchmarks/neighbors.py --ops knn --points 1000 10000 --batch 8 --csv benchmarks/results/mine.csv

Rows: every backend that is installed and runs on the device; "default", what is taken when none is asked for;
"torch_cluster (bare)" and "scipy (bare)", those libraries called directly, without our rules for ties and repetitions;
"fpsample", its reference form, and "fpsample (bucket)", its fast form, which gives other points. All are called once on
1000 points before anything is timed, as "numba" and Triton compile then.
Columns: milliseconds, how many times faster than the reference form ("torch") and than torch_cluster (bare), and the
exponent by which the time grew since the last number of points (1 is in proportion).
What may take longer than --limit seconds, going by its time and growth on fewer points, and what has more than --most
points in all is left out, and said so.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from common import relieve, save, show

OPS = ("farthest points", "knn", "ball query")
BRIEF = 0.02  # seconds below which what the last contender left in caches and threads counts: run once more before


def contenders(op: str, points: int, batch: int, args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    import torch

    from pointmix.ops import use_backend
    from pointmix.ops.dispatch import OPERATIONS
    from pointmix.ops.neighbors import ball_query, knn
    from pointmix.ops.sampling import farthest_point_sampling

    pos = torch.rand(batch * points, 3, generator=torch.Generator().manual_seed(0)).to(args.device)
    ptr = torch.arange(batch + 1, device=args.device) * points
    radius = (args.k / points * 3 / (4 * math.pi)) ** (1 / 3)  # about k points inside

    def call(backend: str | None = None) -> None:
        with use_backend(backend):
            if op == "farthest points":
                farthest_point_sampling(pos, ptr, ratio=args.share)
            elif op == "knn":
                knn(pos, ptr, pos, ptr, args.k)
            else:
                ball_query(pos, ptr, pos, ptr, radius, args.k)

    key = "farthest_points" if op == "farthest points" else "knn"
    found: dict[str, Callable[[], None]] = {"default": call}
    for name, implementation in OPERATIONS[key].implementations.items():
        too_many = name == "triton" and key == "farthest_points" and points > implementation.limit
        if implementation.backend.installed and not implementation.refusal(pos.device.type, pos.dtype) and not too_many:
            found[name] = lambda name=name: call(name)
    found["torch"] = lambda: call("torch")
    if find_spec("torch_cluster"):
        import torch_cluster

        owner = torch.arange(batch, device=args.device).repeat_interleave(points)
        found["torch_cluster (bare)"] = {
            "farthest points": lambda: torch_cluster.fps(pos, owner, ratio=args.share, random_start=False),
            "knn": lambda: torch_cluster.knn(pos, pos, args.k, owner, owner),
            "ball query": lambda: torch_cluster.radius(pos, pos, radius, owner, owner, max_num_neighbors=args.k),
        }[op]
    sets = pos.view(batch, points, 3).cpu().numpy()
    if op == "farthest points" and find_spec("fpsample") and args.device == "cpu":
        import fpsample

        number, height = math.ceil(points * args.share), 3 if points < 10_000 else 7
        found["fpsample"] = lambda: [fpsample.fps_sampling(x, number, 0) for x in sets]
        found["fpsample (bucket)"] = lambda: [fpsample.bucket_fps_kdline_sampling(x, number, height, 0) for x in sets]
    if op == "knn" and args.device == "cpu":
        from scipy.spatial import cKDTree

        found["scipy (bare)"] = lambda: [cKDTree(x).query(x, args.k, workers=args.threads) for x in sets]
    return {name: task for name, task in found.items() if args.backends is None or name in args.backends}


def in_turns(tasks: dict[str, Callable[[], None]], seconds: float, finish: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each task, run one after the other; the slow ones only as often as their time allows."""

    def once(task: Callable[[], None]) -> float:
        begin = time.perf_counter()
        task()
        finish()
        return time.perf_counter() - begin

    first = {name: once(task) for name, task in tasks.items()}
    times = {name: [once(task)] if first[name] < seconds else [first[name]] for name, task in tasks.items()}
    spent = {name: sum(t) for name, t in times.items()}
    while left := [name for name in tasks if spent[name] + times[name][-1] < seconds and len(times[name]) < 50]:
        for name in left:
            if times[name][-1] < BRIEF:
                once(tasks[name])
            times[name].append(once(tasks[name]))
            spent[name] += times[name][-1]
    return {name: statistics.median(t) for name, t in times.items()}


def versions() -> str:
    names = ("numpy", "numba", "scipy", "fpsample", "triton", "torch_cluster", "pytorch3d")
    return " ".join(f"{name} {version(name)}" for name in names if find_spec(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", default=list(OPS), choices=OPS)
    parser.add_argument("--points", nargs="+", type=int, default=[10**n for n in (3, 4, 5, 6)], help="points of a set")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32], help="sets")
    parser.add_argument("--backends", nargs="+", help="rows; all by default")
    parser.add_argument("--k", type=int, default=24, help="neighbors")
    parser.add_argument("--share", type=float, default=0.25, help="share of farthest points")
    parser.add_argument("--most", type=int, default=2_000_000, help="leave out more points than these in all")
    parser.add_argument("--seconds", type=float, default=1, help="time for each row")
    parser.add_argument("--limit", type=float, default=20, help="leave out what would take more seconds for one call")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--csv", type=Path, help="also write the table here")
    args = parser.parse_args()
    relieve()

    import torch

    torch.set_num_threads(args.threads)
    finish = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    rows: list[dict[str, object]] = []
    for op in args.ops:
        for task in contenders(op, 1000, 1, args).values():
            task()
        for batch in args.batch:
            last: dict[str, tuple[int, float, float]] = {}  # points and seconds of each backend, and its growth at most
            for points in sorted(args.points):
                if batch * points > args.most:
                    print(f"left out: {op}, batch {batch}, {points} points: more than {args.most} in all")
                    continue
                tasks = contenders(op, points, batch, args)
                for name, (before, seconds, growth) in last.items():
                    if (expected := seconds * (points / before) ** growth) > args.limit and tasks.pop(name, None):
                        print(f"left out: {name}, {op}, batch {batch}, {points} points: up to {expected:.0f} s")
                print(f"{op}, batch {batch}, {points} points: {len(tasks)} contenders", file=sys.stderr)
                times = in_turns(tasks, args.seconds, finish)
                for name, seconds in times.items():
                    before = last.get(name)
                    growth = math.log(seconds / before[1]) / math.log(points / before[0]) if before else None
                    reference, bare = times.get("torch"), times.get("torch_cluster (bare)")
                    rows.append({
                        "op": op, "batch": batch, "points": points, "backend": name, "ms": f"{seconds * 1e3:.4g}",
                        "x torch": f"{reference / seconds:.3g}" if reference else "",
                        "x torch_cluster": f"{bare / seconds:.3g}" if bare else "",
                        "growth": f"{growth:.2f}" if growth is not None else "",
                    })  # fmt: skip
                    last[name] = (points, seconds, 2 if growth is None else min(growth + 0.4, 2))
    if not rows:
        print("error: nothing to time: no such backend is installed for this device", file=sys.stderr)
        return 2
    title = f"{args.share:g} of the points, {args.k} neighbors, float32, {args.device}"
    show(title, rows, left=("op", "backend"))
    if args.csv:
        rows = [row | {"others": versions()} for row in rows]
        save(args, rows, ("op", "batch", "points", "backend"), share=args.share, k=args.k)
    return 0


if __name__ == "__main__":
    sys.exit(main())
