"""The goals of benchmarks/run.py, the lines that say what was reached, and the tables of lines and goals."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from common import show

# At least, but MOST, on a CPU. Of a GPU the numbers are listed as they are.
OF_BEST = {"coc_small": 0.95, "coc_medium": 0.95, "coc_tiny": 0.85, "hcformer_tiny": 0.85, "fec_small": 0.85}
OF_LIMIT = {"coc_tiny": 0.75, "hcformer_tiny": 0.75, "fec_small": 0.75}  # inference in float32
LITERAL = {
    "float32 training": {"coc_tiny": 1.9, "coc_small": 1.5, "coc_medium": 1.6},
    "bf16 training": {"coc_tiny": 2.4, "coc_small": 1.8, "coc_medium": 2.0},
}
LEAST = {"compiled": 1.0, "single": 1.0, "pointmlp": 1.8, "dense": 1.3, "clustering": 1.0}
MOST = {
    "memory": 0.4, "compile s": 60, "python": 0.2, "quarter": 0.33, "tenth": 0.25, "cloud s": 4, "cloud": 1.05,
    "points": 1.05,
}  # fmt: skip


def line(
    args: Namespace, row: str, what: str, form: str, measured: str, reached: float, against: str, *,
    least: float | None = None, most: float | None = None, of_limit: float | None = None, batch: int | None = None,
) -> dict[str, object]:  # fmt: skip
    """A line of the table: `reached` is what the goal is about, at least or at most so much."""
    if args.device == "cuda":
        least = most = None
    missed = least - reached if least is not None else reached - most if most is not None else 0
    return {
        "row": row, "what": what, "form": form, "measured": measured,
        "of limit": "" if of_limit is None else f"{of_limit:.2f}", "reached": f"{reached:.3g}", "against": against,
        "goal": f"≥ {least}" if least is not None else f"≤ {most}" if most is not None else "",
        "verdict": "" if least is most is None else "met" if missed <= 0 else f"missed by {missed:.2g}",
        "batch": args.batch if batch is None else batch,
    }  # fmt: skip


def summary(lines: Iterable[dict]) -> list[dict[str, object]]:
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
            "goal of": row, "against": worst["against"].partition(",")[0], "goal": goal,
            "reached": f"{worst['reached']} to {group[-1]['reached']}", "worst": f"{worst['what']}, {worst['form']}",
            "met": f"{met} of {len(group)}", "verdict": worst["verdict"],
        })  # fmt: skip
    return rows


def tables(title: str, lines: list[dict]) -> None:
    """Print lines, then what became of each goal. How lines were made is in the file only."""
    lines = [{k: v for k, v in each.items() if k not in ("device", "torch", "python", "command")} for each in lines]
    show(title, lines, left=("what", "form", "against", "verdict"), sections="row")
    if goals := summary(lines):
        show("goals", goals, left=("goal of", "against", "worst", "verdict"))
