"""How fast are we against our goals? Every goal in one table, with what was reached. Contenders in turns.

python benchmarks/run.py                                  # everything; compiling takes most of the time
python benchmarks/run.py --rows inference clustering --no-compile
python benchmarks/run.py --device cuda --csv benchmarks/results/mine.csv

Rows:
inference   coc_tiny, coc_small, coc_medium against the same weights in the papers' form, see image_literal.py
training    the same, forward and backward pass
memory      the same, peak bytes that training steps add, each contender in a process of its own
hcformer    hcformer_tiny against the papers' form
poolformer  achieved FLOP/s of coc_small against timm's poolformer_s12, both eager or both compiled
swin        achieved FLOP/s of coc_medium against timm's swin_tiny
clustering  the op alone, see clustering.py: the kernel on a GPU, products on a CPU, against "direct": batched products
            as one would write them down; also against "bare", the products with nothing between; on a GPU a line more
            for the share of the copy peak
quarter     time of coc_tiny where a quarter of each image is visible, as a share of the time on full images
tenth       the same where a tenth of the pixels is visible, scattered over each image
points      growth of coc_tiny's time with the points of an image, 12544 to 802816 pixels in windows of 7x7 cells: the
            slope of log time over log points by least squares (at 112 pixels stage 4 has 4x4 cells)
kept        the same with the share of points kept, 1/16 to all of 224x224 (no goal)
models      images/s of our networks and of timm's, see timm_models.py, a table of its own (no goal)

A form is a precision and a mode; bf16 is autocast, and for the op alone the type of all that it is given. "reached" is
what the goal is about: against the papers' form, always eager, in the same precision; against timm's network in the
same form. "also" is a second figure beside it: against the papers' form in eager float32, against timm's network in
channels-last layout. Goals of a GPU are about bf16.
FLOP/s are twice the multiply-adds that each network runs (linear, convolution and matrix products, forward pass) over
its time; "of peak" is their share of what a large matrix product reaches in the same turns, and for clustering the
share of what a copy reaches.
A run leaves lines of the file that it does not measure as they are; each says when and how it was made.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from common import copy_task, in_turns, save, show, started
from timm_models import FORMS, contender, forms, peaks, rate, table

# at least or at most; on a CPU of two cores eager and compiled, on one GPU
GOALS = {
    "inference": ("≥", 3, 4, 4),
    "training": ("≥", 2.5, 2.5, 3),
    "memory": ("≤", 0.4, 0.4, 0.4),
    "hcformer": ("≥", 3, 3, 4),
    "poolformer": ("≥", 1.0, 1.0, 1.0),
    "swin": ("≥", 1.2, 1.2, 1.0),
    "clustering": ("≥", 1, 1, 3),
    "clustering copy": ("≥", math.nan, math.nan, 0.6),
    "quarter": ("≤", 0.30, 0.30, 0.35),
    "tenth": ("≤", 0.25, 0.25, math.nan),
    "points": ("≤", 1.05, 1.05, 1.05),
}
COC = ("coc_tiny", "coc_small", "coc_medium")
EAGER = [form for form in FORMS if "eager" in form]


def line(
    args: Namespace, row: str, what: str, form: str, measured: str, reached: float, against: str,
    also: float | None = None, also_against: str = "", of_peak: float | None = None,
) -> dict[str, object]:  # fmt: skip
    """A line of the table. Of a GPU, float32 has no goal."""
    sign, *limits = GOALS.get(row, ("≥", math.nan, math.nan, math.nan))
    goal = limits[2] if args.device == "cuda" else limits["compiled" in form]
    if args.device == "cuda" and "bf16" not in form:
        goal = math.nan
    met = reached >= goal if sign == "≥" else reached <= goal
    return {
        "row": row.split()[0], "what": what, "form": form, "measured": measured,
        "of peak": "" if of_peak is None else f"{of_peak:.2f}", "reached": f"{reached:.3g}", "against": against,
        "also": "" if also is None else f"{also:.3g}", "also against": also_against,
        "goal": "" if math.isnan(goal) else f"{sign} {goal}",
        "verdict": "" if math.isnan(goal) else "met" if met else f"missed by {abs(reached - goal):.2g}",
    }  # fmt: skip


def literal(args: Namespace, row: str, names: tuple[str, ...], train: bool = False) -> Iterator[dict]:
    """Our networks against the papers' form."""
    for name in names:
        ours = EAGER if train else forms(args)
        both = [("", form) for form in ours] + [(" (literal)", form) for form in EAGER]
        steps = {key: contender(args, name + key[0], key[1]) for key in both}
        top = peaks(args)
        tasks = [step[train] for step in steps.values()] + [task for task, _ in top.values()]
        times = dict(zip([*steps, *top], in_turns(tasks, args.seconds, args.device), strict=True))
        for form in ours:
            precision, taken = form.split()[0], times["", form]
            like, first = times[" (literal)", f"{precision} eager"], times[" (literal)", "float32 eager"]
            share = None if train else rate(args, steps["", form][2], taken) / (top[precision][1] / times[precision])
            yield line(
                args, row, f"{name} {'training step' if train else 'inference'}", form,
                f"{args.batch / taken:.4g} images/s", like / taken, "literal, same precision",
                first / taken, "literal, float32", share,
            )  # fmt: skip


def memory(args: Namespace, row: str) -> Iterator[dict]:
    from image_models import memory_of

    argv = [f"--batch={args.batch}", f"--device={args.device}", f"--threads={args.threads}"]
    for name in COC:
        first = None
        for form, more in zip(EAGER, ([], ["--bf16"]), strict=True):
            ours, other = (memory_of(each, argv + more) for each in (name, f"{name} (literal)"))
            first = first or other
            yield line(
                args, row, f"{name} training", form, f"{ours / args.batch:.4g} MiB an image", ours / max(other, 1),
                "literal, same precision", ours / max(first, 1), "literal, float32",
            )  # fmt: skip


def flops(args: Namespace, row: str, name: str, other: str) -> Iterator[dict]:
    last = f"{other} (channels last)"  # the faster layout of convolutions, which a compiler takes by itself
    who = [(each, form) for each in (name, other) for form in forms(args)] + [(last, form) for form in EAGER]
    steps = {(each, form): contender(args, each, form) for each, form in who}
    top = peaks(args)
    tasks = [step[0] for step in steps.values()] + [task for task, _ in top.values()]
    times = dict(zip([*steps, *top], in_turns(tasks, args.seconds, args.device), strict=True))
    for form in forms(args):
        rates = {each: rate(args, steps[each, form][2], times[each, form]) for each, f in steps if f == form}
        ours, precision = rates[name], form.split()[0]
        yield line(
            args, row, f"{name} FLOP/s", form, f"{ours / 1e9:.4g} GFLOP/s", ours / rates[other], other,
            ours / rates[last] if last in rates else None, "channels last" if last in rates else "",
            ours / (top[precision][1] / times[precision]),
        )  # fmt: skip


def clustering(args: Namespace, row: str) -> Iterator[dict]:
    from clustering import SHAPES, contenders

    copy, size = copy_task(args.device)
    ours = "kernel" if args.device == "cuda" else "products"
    for dtype, form in (("float32", EAGER[0]), ("bfloat16", EAGER[1])):
        for name in SHAPES:
            tasks, moved = contenders(name, Namespace(**vars(args) | {"dtype": dtype}))
            for i, what in enumerate(("values", "with gradients")):
                turns = [tasks[way][i] for way in (ours, "direct", "bare")] + [copy]
                taken, direct, bare, copying = in_turns(turns, args.seconds, args.device)
                share = (moved[i] / taken) / (size / copying)
                measured = f"{taken * 1e3:.4g} ms"
                yield line(
                    args, row, f"{name}, {what}", form, measured, direct / taken, "batched products, direct",
                    bare / taken, "bare products", share,
                )  # fmt: skip
                if args.device == "cuda":
                    yield line(args, f"{row} copy", f"{name}, {what}", form, measured, share, "copy peak")


def partial_images(args: Namespace, row: str) -> Iterator[dict]:
    """Rows "quarter" and "tenth"."""
    parts = {"random patches": "(quarter)", "one block": "(quarter block)"}
    parts = parts if row == "quarter" else {"scattered pixels": "(tenth)"}
    for form in EAGER:
        steps = [contender(args, name, form) for name in ("coc_tiny", *(f"coc_tiny {part}" for part in parts.values()))]
        for i, kind in enumerate(("inference", "training step")):
            full, *times = in_turns([step[i] for step in steps], args.seconds, args.device)
            for name, taken in zip(parts, times, strict=True):
                measured = f"{args.batch / taken:.4g} images/s"
                yield line(args, row, f"{row}, {name}, {kind}", form, measured, taken / full, "time on full images")


def growth(args: Namespace, row: str) -> Iterator[dict]:
    """Rows "points" and "kept"."""
    for form in EAGER:
        if row == "points":
            for batch in sorted({1, min(args.batch, 8)}):
                sides = (112, 224, 448, 896)
                sizes = [side**2 for side in sides]
                per_side = [tuple(max(n * side // 224, 1) for n in (8, 4, 2, 1)) for side in sides]
                each = Namespace(**vars(args) | {"batch": batch})
                steps = [
                    contender(each, "coc_tiny", form, side, windows_per_side=f)
                    for side, f in zip(sides, per_side, strict=True)
                ]
                yield slope(args, row, f"time over points, {batch} x 12544 to 802816", form, steps, sizes)
        else:
            shares = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
            steps = [contender(args, "coc_tiny (quarter)", form, share=share) for share in shares]
            yield slope(args, row, "time over share kept, 1/16 to all", form, steps, shares)


def slope(args: Namespace, row: str, what: str, form: str, steps: list, sizes: tuple | list) -> dict[str, object]:
    """The exponent of the growth of time with size; beside it that of the last step alone."""
    times = in_turns([step[0] for step in steps], args.seconds, args.device)
    x, y = ([math.log(n) for n in numbers] for numbers in (sizes, times))
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    measured = " ".join(f"{t * 1e3:.4g}" for t in times) + " ms"
    exponent = statistics.linear_regression(x, y).slope
    return line(args, row, what, form, measured, exponent, "exponent", last, "last step")


ROWS: dict[str, Callable[[Namespace, str], Iterator[dict]]] = {
    "inference": lambda args, row: literal(args, row, COC),
    "training": lambda args, row: literal(args, row, COC, train=True),
    "memory": memory,
    "hcformer": lambda args, row: literal(args, row, ("hcformer_tiny",)),
    "poolformer": lambda args, row: flops(args, row, "coc_small", "poolformer_s12"),
    "swin": lambda args, row: flops(args, row, "coc_medium", "swin_tiny_patch4_window7_224"),
    "clustering": clustering,
    "quarter": partial_images,
    "tenth": partial_images,
    "points": growth,
    "kept": growth,
}


def summary(lines: list[dict]) -> list[dict[str, object]]:
    """Of each goal what was reached at worst and at best; a goal is met if all of its lines are."""
    found: dict[tuple[str, str], list[dict]] = {}
    for each in lines:
        if each["goal"]:
            found.setdefault((each["row"], each["goal"]), []).append(each)
    rows = []
    for (row, goal), group in found.items():
        group.sort(key=lambda each: float(each["reached"]), reverse="≤" in goal)
        worst, met = group[0], sum(each["verdict"] == "met" for each in group)
        rows.append({
            "goal of": row, "goal": goal, "reached": f"{worst['reached']} to {group[-1]['reached']}",
            "worst": f"{worst['what']}, {worst['form']}", "met": f"{met} of {len(group)}", "verdict": worst["verdict"],
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS, "models"], choices=[*ROWS, "models"], metavar="ROW")
    args = started(parser, "goals")
    kept: list[dict] = []
    if args.csv.is_file():
        with args.csv.open(newline="") as file:
            kept = [each for each in csv.DictReader(file) if each.get("row") in ROWS]
    lines: list[dict] = []
    for row in ROWS:
        if row in args.rows:
            print(row, file=sys.stderr)
            lines += ROWS[row](args, row)
            new = {(each["row"], each["form"]) for each in lines}
            kept = [each for each in kept if (each["row"], each["form"]) not in new]
            save(args, sorted(kept + lines, key=lambda each: list(ROWS).index(each["row"])), batch=args.batch)
    if lines:
        title = f"batch {args.batch}, {args.device}, {args.threads} threads"
        show(title, lines, left=("what", "form", "against", "also against", "verdict"), sections="row")
        if goals := summary(lines):
            show("goals", goals, left=("goal of", "goal", "worst", "verdict"))
    if "models" in args.rows:
        stem = args.csv.stem
        name = stem.replace("goals", "models") if "goals" in stem else f"{stem}_models"
        table(Namespace(**vars(args) | {"csv": args.csv.with_name(f"{name}.csv")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
