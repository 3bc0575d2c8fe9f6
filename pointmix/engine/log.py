"""What a run shows: a progress bar or one line an epoch, tensorboard, the curves, the table of results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pointmix.engine.checkpoint import replacing

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # tensorboard is optional
    SummaryWriter = None


class Log:
    """Tells of a run's progress, in one process only (`on`).

    Args:
        out: run folder; tensorboard's files go to out/tensorboard.
        epochs, updates_per_epoch: length of the run.
        step: optimizer steps already done.
        on: whether this process tells anything.
    """

    def __init__(self, out: Path, *, epochs: int, updates_per_epoch: int, total_steps: int, step: int, on: bool):
        self.on, self.epochs, self.updates_per_epoch = on, epochs, updates_per_epoch
        self.console = Console(quiet=not on, highlight=False)
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=step) if on and SummaryWriter else None
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} images/s  loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (on and self.console.is_terminal),
        )
        self.task = self.bar.add_task(
            "train", total=total_steps, completed=step, epoch="", rate=0.0, loss=float("nan"), lr=0.0
        )
        self.images, self.since = 0, time.perf_counter()
        self.rate = 0.0
        self.bar.start()

    def step(self, step: int, images: int) -> None:
        """Count one optimizer step over `images` images."""
        self.images += images
        if not self.bar.disable:
            epoch = f"{(step - 1) // self.updates_per_epoch + 1}/{self.epochs}"
            self.bar.update(self.task, completed=step, epoch=epoch)

    def point(self, step: int, loss: float, lr: float) -> None:
        """A point of the loss curve: mean loss of the steps since the last one."""
        now = time.perf_counter()
        self.rate, self.images, self.since = self.images / max(now - self.since, 1e-9), 0, now
        self.bar.update(self.task, rate=self.rate, loss=loss, lr=lr)
        if self.writer is not None:
            for name, value in (("train/loss", loss), ("train/lr", lr), ("train/images_per_second", self.rate)):
                self.writer.add_scalar(name, value, step)

    def epoch(self, entry: dict[str, Any]) -> None:
        """An entry of the history: one line, and tensorboard's validation curves."""
        val = entry["val"] or {}
        if self.writer is not None:
            for name, value in val.items():
                self.writer.add_scalar(f"val/{name}", value, entry["step"])
            self.writer.flush()
        self.images, self.since = 0, time.perf_counter()  # evaluation is not training time
        seen = f"val loss {val['loss']:.4f}  top-1 {100 * val['top1']:.2f} %  " if val else ""
        self.note(
            f"epoch {entry['epoch']:g}/{self.epochs}  train loss {entry['train_loss']:.4f}  {seen}"
            f"lr {entry['lr']:.2e}  {entry['seconds']:.0f} s"
        )

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away and close tensorboard's files."""
        self.bar.stop()
        if self.writer is not None:
            self.writer.close()


def show_result(metrics: dict[str, Any], out: Path, *, console: Console) -> None:
    """Print a table of a finished run: the result and where its files lie."""
    test, count = metrics["test"], metrics["parameters"]
    chosen = metrics["selected"]
    table = Table(title=f"{metrics['model']['name']} on {metrics['data']}", show_header=False, title_justify="left")
    table.add_row("test top-1", f"[bold]{100 * test['top1']:.2f} %[/]")
    table.add_row("test top-5", f"{100 * test['top5']:.2f} %")
    table.add_row("test loss", f"{test['loss']:.4f}")
    why = f"validation top-1 {100 * chosen['val']['top1']:.2f} %" if chosen["val"] else "being the last"
    table.add_row("chosen by", f"{why}, epoch {chosen['epoch']:g}")
    table.add_row("parameters", f"{count:,} = {count / 1e6:.2f} M (1e6) = {count / 2**20:.2f} Mi (2^20)")
    table.add_row("training", f"{metrics['epochs']:g} epochs, {metrics['steps']:,} steps, {metrics['seconds']:.0f} s")
    names = ("config.yaml", "metrics.json", "model.safetensors", "curves.png", "clusters.png", "checkpoint")
    table.add_row("files", f"{out}/: " + ", ".join(n for n in names if (out / n).exists()))
    console.print(table)


def draw_curves(path: Path, curve: list[list[float]], history: list[dict[str, Any]]) -> None:
    """Draw training loss, validation top-1 and learning rate over the optimizer steps.

    Args:
        path: a PNG file, written atomically.
        curve: [step, loss, lr] points.
        history: entries with "step", "train_loss" and "val", which is None where nothing was held back.
    """
    from matplotlib.figure import Figure  # not pyplot, whose display and open figures are the caller's

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    loss, top1, lr = figure.subplots(1, 3)
    steps = [e["step"] for e in history]
    if curve:
        x, losses, rates = zip(*curve, strict=True)
        loss.plot(x, losses, color="tab:blue", alpha=0.3, lw=1, label="train, each point")
        lr.plot(x, rates, color="tab:gray")
    loss.plot(steps, [e["train_loss"] for e in history], color="tab:blue", marker=".", label="train, epoch mean")
    seen = [e for e in history if e["val"]]
    scores = [100 * e["val"]["top1"] for e in seen]
    if seen:
        steps = [e["step"] for e in seen]
        loss.plot(steps, [e["val"]["loss"] for e in seen], color="tab:orange", marker=".", label="validation")
        top1.plot(steps, scores, color="tab:orange", marker=".")
        best = max(range(len(scores)), key=scores.__getitem__)
        top1.scatter([steps[best]], [scores[best]], color="tab:red", zorder=3, label=f"chosen: {scores[best]:.2f} %")
        top1.legend(frameon=False, loc="lower right")
    loss.legend(frameon=False)
    titles = ((loss, "loss"), (top1, "validation top-1 (%)"), (lr, "learning rate"))
    for axis, title in titles:
        axis.set(title=title, xlabel="optimizer step")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
