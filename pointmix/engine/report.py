"""What is left to look at when a run has ended: the tables of results, the curves."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pointmix.engine.log import in_percent
from pointmix.utils.atomic import replacing
from pointmix.utils.messages import one_line

if TYPE_CHECKING:
    from pointmix.engine.run import Run

FILES = "config.yaml metrics.json model.safetensors curves.png clusters.png confusion.png checkpoint".split()
OF_IMAGES = {"top1": "top-1", "top5": "top-5"}  # metrics.json of earlier versions does not say


def start_lines(run: Run, recipe: str | None) -> str:
    """What is trained, on what and how, and where that is from: two lines for the start of a run."""
    cfg, optim, splits = run.cfg, run.cfg.optim, run.splits
    counts = {"to train": splits.train, "for validation": splits.val, "for test": splits.test}
    sizes = ", ".join(f"{len(loader.dataset):,} {what}" for what, loader in counts.items() if loader is not None)
    total = cfg.batch_size * cfg.accum * run.accelerator.num_processes
    first = {
        "recipe": recipe or "none",
        "model": f"{cfg.model.name}, {sum(p.numel() for p in run.model.parameters()):,} parameters",
        "data": f"{cfg.data_name}, {len(splits.classes)} classes, {cfg.unit}: {sizes}",
    }
    second = {
        "optimizer": f"{optim.opt}, learning rate {optim.scaled_lr(total):.3g} at a total batch of {total:,}",
        "schedule": _schedule(run),
        "length": f"{run.epochs:,} epochs of {run.updates_per_epoch:,} steps",
        "run folder": str(run.out),
    }
    return "\n".join(" | ".join(f"{what}: {text}" for what, text in line.items()) for line in (first, second))


def _schedule(run: Run) -> str:
    if run.scheduler is None:
        return "none"
    warmup = run.scheduler.warmup_t / (run.updates_per_epoch if not run.scheduler.t_in_epochs else 1)
    return run.cfg.optim.sched + (f" after {warmup:.3g} epochs of warm-up" if warmup else "")


def show_result(metrics: dict[str, Any], out: Path, *, console: Console) -> None:
    """Print a table of a finished run, one of its classes if they were counted, and where its files lie."""
    test, count, chosen = metrics["test"], metrics["parameters"], metrics["selected"]
    shares, select = metrics.get("shares", OF_IMAGES), metrics.get("select", "val")
    by = metrics.get("select_by", "top1")
    table = Table(title=f"{metrics['model']['name']} on {metrics['data']}", show_header=False, title_justify="left")
    for name, label in shares.items():
        table.add_row(f"test {label}", f"[{'bold' if name == by else 'default'}]{100 * test[name]:.2f} %[/]")
    table.add_row("test loss", f"{test['loss']:.4f}")
    for name, found in metrics.get("more_tests", {}).items():
        table.add_row(f"test, {name}", in_percent(found, shares))
    if select == "test":
        table.add_row("chosen by", f"[red]test {shares[by]}, epoch {chosen['epoch']:g}: selected on the test data[/]")
        table.add_row("last epoch", in_percent(metrics["last"], shares))
        table.add_row("best on test, each by itself", in_percent(metrics["best_on_test"], shares))
    else:
        best = select == "val" and chosen["val"]
        why = f"validation {shares[by]} {100 * chosen['val'][by]:.2f} %" if best else "being the last"
        table.add_row("chosen by", f"{why}, epoch {chosen['epoch']:g}")
    table.add_row("parameters", f"{count:,} = {count / 1e6:.2f} M (1e6) = {count / 2**20:.2f} Mi (2^20)")
    table.add_row("training", f"{metrics['epochs']:g} epochs, {metrics['steps']:,} steps, {metrics['seconds']:.0f} s")
    table.add_row("files", f"{out}/: " + ", ".join(n for n in FILES if (out / n).exists()))
    if "per_class" in test:
        console.print(class_table(test, metrics["classes"], metrics.get("unit", "samples")))
    console.print(table)


def class_table(test: dict[str, Any], classes: list[str], unit: str) -> Table:
    """How many of each class are taken for what they are; `unit` is what the samples are called."""
    table = Table(title="test data by class", title_justify="left")
    for column in ("class", unit, "right", "accuracy", "most often taken for"):
        table.add_column(column, justify="left" if column in ("class", "most often taken for") else "right")
    classes = [one_line(name) for name in classes]
    for i, (name, share, row) in enumerate(zip(classes, test["per_class"], test["confusion"], strict=True)):
        wrong = [0 if j == i else n for j, n in enumerate(row)]
        most = max(range(len(row)), key=wrong.__getitem__)
        other = escape(f"{classes[most]} ({wrong[most]})") if wrong[most] else ""
        table.add_row(escape(name), str(sum(row)), str(row[i]), "" if share is None else f"{100 * share:.1f} %", other)
    return table


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1; None of one value) of some results."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": values}


def show_seeds(summary: dict[str, Any], out: Path, *, console: Console) -> None:
    """Print a table of the runs of several seeds, with mean and deviation."""
    table = Table(title=f"{summary['model']['name']} on {summary['data']}", title_justify="left")
    for column in ("", *(f"seed {seed}" for seed in summary["seeds"]), "mean", "deviation"):
        table.add_column(column, justify="right" if column else "left")
    parts = {what.replace("_", " "): summary[what] for what in ("test", "last", "best_on_test") if what in summary}
    for what, found in (parts | summary.get("more_tests", {})).items():
        for name, label in summary["shares"].items():
            values, mean, deviation = found[name]["values"], found[name]["mean"], found[name]["std"]
            cells = [f"{100 * value:.2f}" for value in (*values, mean)]
            table.add_row(f"{what} {label} (%)", *cells, "" if deviation is None else f"{100 * deviation:.2f}")
    console.print(table)
    if summary["select"] == "test":
        console.print("[red]test: of epochs selected on the test data; last: of the last ones[/]")
    console.print(f"files: {out}/seeds.json and {out}/seed*", markup=False, soft_wrap=True)


def draw_curves(
    path: Path,
    curve: list[list[float]],
    history: list[dict[str, Any]],
    *,
    select: str = "val",
    metric: tuple[str, str] = ("top1", "top-1"),
) -> None:
    """Draw training loss, the metric that selects (in validation, and on test where that selects), and learning rate
    over the optimizer steps.

    Args:
        path: a PNG file, written atomically.
        curve: [step, loss, lr] points.
        history: entries with "step", "train_loss", "val", which is None where nothing was held back, and with `select`
            test "test".
        select: what chose the epoch.
        metric: a fraction of 1 in "val" and "test", and what to call it.
    """
    from matplotlib.figure import Figure  # not pyplot, whose display and open figures are the caller's

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    loss, score, lr = figure.subplots(1, 3)
    if curve:
        x, losses, rates = zip(*curve, strict=True)
        loss.plot(x, losses, color="tab:blue", alpha=0.3, lw=1, label="train, each point")
        lr.plot(x, rates, color="tab:gray")
    steps = [e["step"] for e in history]
    loss.plot(steps, [e["train_loss"] for e in history], color="tab:blue", marker=".", label="train, epoch mean")
    key, name = metric
    for look, label, color in (("val", "validation", "tab:orange"), ("test", "test", "tab:green")):
        seen = [e for e in history if e.get(look)]
        if not seen:
            continue
        steps, scores = [e["step"] for e in seen], [100 * e[look][key] for e in seen]
        loss.plot(steps, [e[look]["loss"] for e in seen], color=color, marker=".", label=label)
        score.plot(steps, scores, color=color, marker=".", label=label)
        if look == select:
            best = max(range(len(scores)), key=scores.__getitem__)
            label = f"chosen: {scores[best]:.2f} %"
            score.scatter([steps[best]], [scores[best]], color="tab:red", zorder=3, label=label)
        score.legend(frameon=False, loc="lower right")
    loss.legend(frameon=False)
    for axis, title in ((loss, "loss"), (score, f"{name} (%)"), (lr, "learning rate")):
        axis.set(title=title, xlabel="optimizer step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
