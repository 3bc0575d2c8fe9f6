"""One table of several recipes, each trained with several seeds."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from pointmix.engine.checkpoint import load_run
from pointmix.engine.report import mean_and_std, read_scores
from pointmix.profile.macs import Macs, count, count_layers, has_parts, total
from pointmix.tasks.base import get_task
from pointmix.tasks.config import RunConfig
from pointmix.utils.atomic import write_text

COLUMNS = {
    "recipe": "recipe",
    "model": "model",
    "mean": "mean",
    "std": "deviation",
    "seeds": "seeds",
    "parameters": "parameters",
    "macs_linear": "MMAC conv + linear",
    "macs_multiplied": "MMAC + products",
    "samples_per_second": "train samples/s",
    "epochs": "epochs",
    "steps": "steps",
    "seconds": "train s",
}
NOTE = (
    "Deviation of a sample (n - 1). Multiply-adds (10^6) of one sample, by the reference form; the second count has "
    "matrix products of activations too. Samples/s and seconds are means over the seeds and include validation."
)


def row(name: str, cfg: RunConfig, runs: dict[int, dict[str, Any] | None], folder: Path) -> dict[str, Any]:
    """A row of the table.

    Args:
        name: the recipe's.
        cfg: its configuration.
        runs: metrics.json of each seed, None for those that did not finish.
        folder: holds seed<n>, the run folder of each.
    """
    ended = {seed: metrics for seed, metrics in runs.items() if metrics is not None}
    missing = [seed for seed in runs if seed not in ended]
    known = {"recipe": name, "model": cfg.model.name, "seeds": list(ended), "missing": missing}
    if not ended:
        return known
    first, all_runs = next(iter(ended.values())), ended.values()
    macs, monitor = sample_macs(folder / f"seed{known['seeds'][0]}"), first["monitor"]
    score = read_scores(first)[monitor]
    samples = cfg.batch_size * cfg.grad_accum_steps * first["processes"]  # a step
    return known | {
        "metric": f"test {score.label}",
        "percent": score.percent,
        **mean_and_std([run["test"][monitor] for run in all_runs]),
        "parameters": first["parameters"],
        "macs_linear": macs.linear,
        "macs_multiplied": macs.multiplied,
        "samples_per_second": statistics.fmean(samples * run["steps"] / run["seconds"] for run in all_runs),
        "epochs": first["epochs"],
        "steps": first["steps"],
        "seconds": statistics.fmean(run["seconds"] for run in all_runs),
    }


def sample_macs(run: Path) -> Macs:
    """Multiply-adds of the network in a run folder, for one sample as in its evaluation."""
    model, info = load_run(run)
    x = get_task(info["task"]).example_input(info)
    if isinstance(x, Tensor) and not has_parts(model):
        return count_layers(model, x)
    return total(count(model, x))


def show(rows: list[dict[str, Any]], out: Path, *, command: str) -> None:
    """Print the table, and write it to ablation.md, .csv and .json in `out` (fractions of 1, exact counts)."""
    metric, percent = next(((r["metric"], r["percent"]) for r in rows if "metric" in r), ("test", True))
    titles = [
        f"{metric}{' (%)' if percent else ''}, mean" if key == "mean" else title for key, title in COLUMNS.items()
    ]
    table = Table(*titles)
    for column in table.columns[2:]:
        column.justify = "right"
    lines = ["| " + " | ".join(titles) + " |", "|---|---|" + "---:|" * (len(titles) - 2)]
    for r in rows:
        cells = [_cell(key, r) for key in COLUMNS]
        table.add_row(*map(Text, cells))
        lines.append("| " + " | ".join(cells) + " |")
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(key for r in rows for key in r), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "ablation.md", "\n".join([*lines, "", f"    {command}", "", NOTE, ""]))
    write_text(out / "ablation.csv", text.getvalue())
    write_text(out / "ablation.json", json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    console = Console()
    console.width = console.width if console.is_terminal else 200  # files and pipes have no width
    console.print(table)
    print(f"table in {out / 'ablation.md'}, .csv and .json")


def _cell(key: str, row: dict[str, Any]) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if key == "seeds":
        return f"{len(value)} of {len(value) + len(row['missing'])}" if row["missing"] else str(len(value))
    forms = {"parameters": ",", "steps": ",", "epochs": ".4g", "samples_per_second": ".0f", "seconds": ".0f"}
    if key in ("mean", "std"):
        return f"{100 * value:.2f}" if row["percent"] else f"{value:.4f}"
    return f"{value / 1e6:.2f}" if key.startswith("macs") else format(value, forms.get(key, ""))
