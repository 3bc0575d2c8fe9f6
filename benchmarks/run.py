"""How fast are we against our goals? Every goal in one table, with what was reached. Contenders in turns.

python benchmarks/run.py                                # everything: about 45 minutes on two cores
python benchmarks/run.py --precisions float32           # without bf16: about half of it
python benchmarks/run.py --no-compile                   # without row "compiled": 20 to 25 minutes on two cores
python benchmarks/run.py --rows share single --models coc_tiny deit_tiny_patch16_224 --seconds 0.5
python benchmarks/run.py --show                         # what the file has; measures nothing
python benchmarks/run.py --device cuda --csv benchmarks/results/mine.csv

Rows, with the minutes they take on two cores, images of 224 pixels:
share       6    our networks and timm's of like size: the share of the limit that each reaches, see shares.py. Goals of
                 inference in float32 are about the limit itself, the others about the best of timm's in the same turns
single      1    one image at a time: the share of the limit over that of deit_tiny; and "Python", the share of the time
                 outside of torch's operators, as torch's profiler counts both in the same calls (not on a GPU)
literal     4    a training step, and inference, of coc_* against the same weights in the papers' form
memory      2    the same, peak bytes that training steps add, each contender in a process of its own
compiled    20   compiled as `--compile` of training does against eager, and the seconds of the first call without
                 anything cached; --models for less
quarter     1    time of coc_tiny where a quarter of each image is visible, as a share of the time on full images
tenth       1    the same where a tenth of the pixels is visible, scattered over each image
cloud       1    seconds of coc_tiny on a cloud of a million points, and the exponent of its time from 100,000 on
pointmlp    2    pointmlp_coc against the same weights in the papers' form
dense       2    a training step of segmenters and detectors, 512 pixels, against the same networks on full maps
clustering  2    the op alone, see clustering.py: the kernel on a GPU, products on a CPU, against "direct", batched
                 products as one would write them down. Its limit is the rate of a copy
points      1    growth of coc_tiny's time with the points of an image, 12544 to 802816 pixels in windows of 7x7 cells:
                 the slope of log time over log points by least squares (at 112 pixels stage 4 has 4x4 cells)
kept        1    the same with the share of points kept, 1/16 to all of 224x224 (no goal)

A form is a precision, of which bf16 is autocast, and inference or training, a forward and a backward pass. "reached" is
what the goal is about; "against" says what it is compared with. Of a GPU, numbers have no goals, and "(triton)" are
networks on the fused kernels. By default both precisions are measured, but float32 only on a CPU without instructions
for bfloat16, where torch emulates them and takes many times longer than in float32.
Lines of the file that a run does not measure stay as they are; each says when and how it was made.
"""

from __future__ import annotations

import argparse
import csv
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from common import save, started
from goals import tables
from machine import has_bf16
from pairs import clustering, compiled, dense, literal, memory, pointmlp
from sets import cloud, kept, part, points
from shares import OURS, PRECISIONS, TIMM, share, single

ROWS: dict[str, Callable[[Namespace, str], Iterator[dict]]] = {
    "share": share, "single": single, "literal": literal, "memory": memory, "compiled": compiled, "quarter": part,
    "tenth": part, "cloud": cloud, "pointmlp": pointmlp, "dense": dense, "clustering": clustering, "points": points,
    "kept": kept,
}  # fmt: skip


def default_precisions(device: str) -> list[str]:
    """Both, but only float32 where bfloat16 is emulated."""
    if device == "cpu" and not has_bf16():
        print("float32 only: no instructions for bfloat16 here (--precisions bf16 measures it)", file=sys.stderr)
        return ["float32"]
    return list(PRECISIONS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--models", nargs="+", default=[*OURS, *TIMM], choices=[*OURS, *TIMM], metavar="NAME",
                        help="in rows about several networks, only these")  # fmt: skip
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, metavar="PRECISION",
                        help="float32, bf16; by default both, without instructions for bfloat16 float32")  # fmt: skip
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes minutes to compile")
    parser.add_argument("--show", action="store_true", help="print what the file has; measure nothing")
    args = started(parser, "goals")
    if args.show:
        if not args.csv.is_file():
            parser.exit(2, f"error: there is no {args.csv}; --csv names another file, such as of another machine\n")
        with args.csv.open(newline="") as file:
            lines = [each for each in csv.DictReader(file) if each["row"] in ROWS]
        tables(str(args.csv), sorted(lines, key=lambda each: list(ROWS).index(each["row"])))
        return 0
    args.precisions = args.precisions or default_precisions(args.device)
    made: list[dict] = []
    for row, measure in ROWS.items():
        if row not in args.rows or (row == "compiled" and args.no_compile):
            continue
        print(row, file=sys.stderr)
        for each in measure(args, row):
            made.append(each)
            save(args, [each], ("row", "what", "form", "batch"), quiet=True)
    if not made:
        parser.exit(2, f"error: rows {', '.join(args.rows)} have nothing to measure with these options\n")
    tables(f"batch {args.batch}, {args.device}, {args.threads} threads", made)
    print(f"written to {args.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
