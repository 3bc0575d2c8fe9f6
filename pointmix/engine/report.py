"""The result of a run: tables on the console, and the curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pointmix.engine.log import score_text
from pointmix.tasks.base import get_task
from pointmix.tasks.protocols import Score
from pointmix.utils.atomic import replacing

if TYPE_CHECKING:
    from pointmix.engine.run import Run, TrainState

FILES = ("config.yaml", "metrics.json", "model.safetensors", "checkpoint")


def read_scores(metrics: Mapping[str, Any]) -> dict[str, Score]:
    """The scores as metrics.json holds them."""
    return {name: Score(**score) for name, score in metrics["scores"].items()}


def start_lines(run: Run, recipe: str | None) -> str:
    """Two lines for the start of a run: what is trained on which data, and how."""
    cfg, optim, splits = run.cfg, run.cfg.optim, run.splits
    loaders = {"to train": splits.train, "for validation": splits.val, "for test": splits.test}
    sizes = ", ".join(f"{len(loader.samples):,} {use}" for use, loader in loaders.items() if loader is not None)
    total = cfg.batch_size * cfg.grad_accum_steps * run.accelerator.num_processes
    frozen = "" if run.frozen is None else f", {run.frozen}"
    decay = "" if optim.layer_decay is None else f" in the head, times {optim.layer_decay:g} a layer,"
    first = {
        "recipe": recipe or "none",
        "model": f"{cfg.model.name}, {sum(p.numel() for p in run.model.parameters()):,} parameters{frozen}",
        "data": f"{run.task.describe_data(cfg, run.info)}, {run.task.unit}: {sizes}",
    }
    second = {
        "optimizer": f"{optim.opt}, learning rate {optim.scaled_lr(total):.3g}{decay} at a total batch of {total:,}",
        "schedule": _schedule(run),
        "length": f"{run.epochs:,} epochs of {run.updates_per_epoch:,} steps",
        "run folder": str(run.folder),
    }
    return "\n".join(" | ".join(f"{key}: {text}" for key, text in line.items()) for line in (first, second))


def _schedule(run: Run) -> str:
    if run.scheduler is None:
        return "none"
    warmup = getattr(run.scheduler, "warmup_t", 0) / (run.updates_per_epoch if not run.scheduler.t_in_epochs else 1)
    return run.cfg.optim.sched + (f" after {warmup:.3g} epochs of warm-up" if warmup else "")


def show_result(metrics: dict[str, Any], folder: Path, *, console: Console) -> None:
    """Print what the task reports of a finished run, a table of its scores, and where its files are.

    Args:
        metrics: content of metrics.json.
        folder: the run folder.
    """
    test, count, selected = metrics["test"], metrics["parameters"], metrics["selected"]
    scores, select, monitor = read_scores(metrics), metrics["select"], metrics["monitor"]
    table = Table(title=f"{metrics['model']['name']} on {metrics['data']}", show_header=False, title_justify="left")
    for name, score in scores.items():
        style = "bold" if name == monitor else "default"
        table.add_row(f"test {score.label}", f"[{style}]{score.text(test[name])}[/]")
    if "loss" in test and "loss" not in scores:
        table.add_row("test loss", f"{test['loss']:.4f}")
    for name, result in metrics["more_tests"].items():
        table.add_row(f"test, {name}", score_text(result, scores))
    if select == "test":
        why = f"test {scores[monitor].label}, epoch {selected['epoch']:g}: selected on the test data"
        table.add_row("selected by", f"[red]{why}[/]")
        table.add_row("last epoch", score_text(metrics["last"], scores))
        table.add_row("best on test, each by itself", score_text(metrics["best_on_test"], scores))
    else:
        why = "being the last"
        if select == "val" and selected["val"]:
            why = f"validation {scores[monitor].label} {scores[monitor].text(selected['val'][monitor])}"
        table.add_row("selected by", f"{why}, epoch {selected['epoch']:g}")
    table.add_row("parameters", f"{count:,} = {count / 1e6:.2f} M (1e6) = {count / 2**20:.2f} Mi (2^20)")
    table.add_row("training", f"{metrics['epochs']:g} epochs, {metrics['steps']:,} steps, {metrics['seconds']:.0f} s")
    names = [name for name in (*FILES, *metrics["pictures"]) if (folder / name).exists()]
    table.add_row("files", f"{folder}/: " + ", ".join(names))
    get_task(metrics["task"]).report(metrics, console)
    console.print(table)


def mean_and_std(values: list[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1; None for one value) of some results."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": values}


def show_seeds(summary: dict[str, Any], folder: Path, *, console: Console) -> None:
    """Print a table of the runs of several seeds, with mean and deviation.

    Args:
        summary: content of seeds.json.
        folder: holds the run folders.
    """
    table = Table(title=f"{summary['model']['name']} on {summary['data']}", title_justify="left")
    for column in ("", *(f"seed {seed}" for seed in summary["seeds"]), "mean", "deviation"):
        table.add_column(column, justify="right" if column else "left")
    tests = {name.replace("_", " "): summary[name] for name in ("test", "last", "best_on_test") if name in summary}
    for test, results in (tests | summary.get("more_tests", {})).items():
        for name, score in read_scores(summary).items():
            values, mean, deviation = results[name]["values"], results[name]["mean"], results[name]["std"]
            factor, digits, unit = (100, 2, " (%)") if score.percent else (1, 4, "")
            cells = [f"{factor * value:.{digits}f}" for value in (*values, mean)]
            last = "" if deviation is None else f"{factor * deviation:.{digits}f}"
            table.add_row(f"{test} {score.label}{unit}", *cells, last)
    console.print(table)
    if summary["select"] == "test":
        console.print("[red]test: of epochs selected on the test data; last: of the last ones[/]")
    console.print(f"files: {folder}/seeds.json and {folder}/seed*", markup=False, soft_wrap=True)


def draw_curves(path: Path, state: TrainState, *, select: str, metric: tuple[str, Score]) -> None:
    """Draw training loss, the monitored metric (in validation, and on test if that selects), and learning rate over the
    optimizer steps.

    Args:
        path: a PNG file, written atomically.
        state: of the run, with its curve and history.
        select: what selected the epoch.
        metric: the metric's name and how it is shown.
    """
    from matplotlib.figure import Figure  # not pyplot, whose display and open figures are the caller's

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    loss, value, lr = figure.subplots(1, 3)
    if state.curve:
        x, values, rates = zip(*state.curve, strict=True)
        few = {"marker": "."} if len(x) < 10 else {}  # a line through one point is invisible
        loss.plot(x, values, color="tab:blue", alpha=0.3, lw=1, label="train, each point", **few)
        lr.plot(x, rates, color="tab:gray", **few)
    last = max([1.0, *(point[0] for point in state.curve), *(entry["step"] for entry in state.history)])
    steps, losses = [e["step"] for e in state.history], [e["train_loss"] for e in state.history]
    loss.plot(steps, losses, color="tab:blue", marker=".", label="train, epoch mean")
    key, score = metric
    for split, label, color in (("val", "validation", "tab:orange"), ("test", "test", "tab:green")):
        entries = [e for e in state.history if e.get(split)]
        if not entries:
            continue
        steps, scores = [e["step"] for e in entries], [(100 if score.percent else 1) * e[split][key] for e in entries]
        if all("loss" in e[split] for e in entries):
            loss.plot(steps, [e[split]["loss"] for e in entries], color=color, marker=".", label=label)
        value.plot(steps, scores, color=color, marker=".", label=label)
        if split == select:
            best = (max if score.larger_is_better else min)(range(len(scores)), key=scores.__getitem__)
            label = f"selected: {score.text(entries[best][split][key])}"
            value.scatter([steps[best]], [scores[best]], color="tab:red", zorder=3, label=label)
        value.legend(frameon=False, loc="lower right" if score.larger_is_better else "upper right")
    if not value.has_data():
        text = {"transform": value.transAxes, "ha": "center", "va": "center", "color": "tab:gray"}
        value.text(0.5, 0.5, "not measured during training", **text)
    loss.legend(frameon=False)
    title = f"{score.label} (%)" if score.percent else score.label
    for axis, name in ((loss, "loss"), (value, title), (lr, "learning rate")):
        axis.set(title=name, xlabel="optimizer step", xlim=(0, 1.03 * last))
        if axis.dataLim.height == 0 and axis.has_data():  # one value: show it on a scale
            axis.set_ylim(0, 100 if axis is value and score.percent else None)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
