"""Rows of benchmarks/run.py about time and the number of points: "quarter", "tenth", "points", "kept" and "cloud"."""

from __future__ import annotations

import math
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator

from common import in_turns
from goals import MOST, line
from large import of_cloud
from shares import KINDS, contender

CLOUDS = (100_000, 1_000_000)
PARTS = {
    "quarter": {"random patches": "coc_tiny (quarter)", "one block": "coc_tiny (quarter block)"},
    "tenth": {"scattered pixels": "coc_tiny (tenth)"},
}


def part(args: Namespace, row: str) -> Iterator[dict]:
    """Rows "quarter" and "tenth"."""
    for precision in args.precisions:
        steps = [contender(args, name, precision) for name in ("coc_tiny", *PARTS[row].values())]
        for i, kind in enumerate(KINDS):
            full, *times = in_turns([step[i] for step in steps], args.seconds, args.device)
            for what, taken in zip(PARTS[row], times, strict=True):
                yield line(
                    args, row, what, f"{precision} {kind}", f"{args.batch / taken:.4g} images/s", taken / full,
                    "time on full images", most=MOST[row],
                )  # fmt: skip


def points(args: Namespace, row: str) -> Iterator[dict]:
    sides = (112, 224, 448, 896)
    windows = [tuple(max(n * side // 224, 1) for n in (8, 4, 2, 1)) for side in sides]
    for precision in args.precisions:
        for batch in sorted({1, min(args.batch, 8)}):
            each = Namespace(**vars(args) | {"batch": batch})
            steps = [
                contender(each, "coc_tiny", precision, side, windows_per_side=per_side)[0]
                for side, per_side in zip(sides, windows, strict=True)
            ]
            yield slope(each, row, "12544 to 802816 pixels", precision, steps, [side**2 for side in sides])


def kept(args: Namespace, row: str) -> Iterator[dict]:
    shares = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
    for precision in args.precisions:
        steps = [contender(args, "coc_tiny (quarter)", precision, share=share)[0] for share in shares]
        yield slope(args, row, "1/16 to all patches kept", precision, steps, shares)


def slope(
    args: Namespace, row: str, what: str, precision: str, steps: list[Callable[[], None]], sizes: list
) -> dict[str, object]:
    """The exponent of the growth of time with size, by least squares."""
    times = in_turns(steps, args.seconds, args.device)
    exponent = statistics.linear_regression(*([math.log(n) for n in numbers] for numbers in (sizes, times))).slope
    measured = " ".join(f"{t * 1e3:.4g}" for t in times) + " ms"
    return line(args, row, what, f"{precision} inference", measured, exponent, "exponent", most=MOST.get(row))


def cloud(args: Namespace, row: str) -> Iterator[dict]:
    """coc_tiny on a single cloud, a hundred thousand and a million random points in a cube."""
    import torch

    if "float32" not in args.precisions:
        return
    one, form = Namespace(**vars(args) | {"batch": 1}), "float32 inference"
    tasks = [of_cloud(torch.rand(n, 3), args.device) for n in CLOUDS]
    few, many = in_turns(tasks, args.seconds, args.device)
    what = f"{CLOUDS[-1]:,} points"
    yield line(one, row, what, form, f"{many:.4g} s", many, "seconds", most=MOST["cloud s"])
    exponent = math.log(many / few) / math.log(CLOUDS[-1] / CLOUDS[0])
    what = f"{CLOUDS[0]:,} to {CLOUDS[-1]:,} points"
    yield line(one, row, what, form, f"{few:.4g} {many:.4g} s", exponent, "exponent", most=MOST[row])
