"""Progress of a run: a progress bar or one line an epoch, and tensorboard."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pointmix.tasks.protocols import Score

try:
    from torch.utils import tensorboard
except ImportError:  # it is optional
    tensorboard = None  # type: ignore[assignment]


class Log:
    """Logs the progress of a run, on the main process only.

    Args:
        out: run folder; tensorboard's files go to out/tensorboard.
        epochs, updates_per_epoch: length of the run.
        step: optimizer steps already done.
        unit: what the samples are called, as "images".
        scores: the metrics that are shown.
        on: whether this process logs.
    """

    def __init__(self, out: Path, *, epochs: int, updates_per_epoch: int, total_steps: int, step: int, unit: str,
                 scores: Mapping[str, Score], on: bool) -> None:  # fmt: skip
        self.on, self.epochs, self.updates_per_epoch, self.scores = on, epochs, updates_per_epoch, scores
        self.console = Console(quiet=not on, highlight=False)
        self.writer = None
        if on and tensorboard is not None:
            self.writer = tensorboard.SummaryWriter(str(out / "tensorboard"), purge_step=step)
        self.hook_before = threading.excepthook
        if self.writer is not None:
            threading.excepthook = self._thread_failed
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{{task.fields[rate]:.0f}} {unit}/s  loss {{task.fields[loss]:.4f}}"),
            TextColumn("lr {task.fields[lr]:.2e}  waits {task.fields[waits]:.0%}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (on and self.console.is_terminal),
        )
        self.task = self.bar.add_task(
            "train", total=total_steps, completed=step, epoch="", rate=0.0, loss=float("nan"), lr=0.0, waits=0.0
        )
        self.samples, self.waited, self.since = 0, 0.0, time.perf_counter()
        self.bar.start()

    def step(self, step: int, samples: int, *, waited: float = 0.0) -> None:
        """Count one optimizer step.

        Args:
            samples: of all processes.
            waited: seconds for which the step waited for its data.
        """
        self.samples, self.waited = self.samples + samples, self.waited + waited
        if not self.bar.disable:
            epoch = f"{(step - 1) // self.updates_per_epoch + 1}/{self.epochs}"
            self.bar.update(self.task, completed=step, epoch=epoch)

    def point(self, step: int, loss: float, lr: float) -> None:
        """A point of the loss curve: mean loss of the steps since the last one."""
        now = time.perf_counter()
        passed = max(now - self.since, 1e-9)
        rate, waits = self.samples / passed, self.waited / passed
        self.samples, self.waited, self.since = 0, 0.0, now
        self.bar.update(self.task, rate=rate, loss=loss, lr=lr, waits=waits)
        points = {"loss": loss, "lr": lr, "samples_per_second": rate, "share_waiting_for_data": waits}
        self._record({f"train/{name}": value for name, value in points.items()}, step)

    def epoch(self, entry: dict[str, Any], parts: Mapping[str, float] | None = None) -> None:
        """An entry of the history: one line, and tensorboard's validation curves.

        Args:
            parts: of the training loss, by name.
        """
        splits = {split: entry[split] for split in ("val", "test") if entry.get(split)}
        values = {f"{split}/{name}": value for split, metrics in splits.items() for name, value in metrics.items()}
        values |= {f"train/{name}": value for name, value in (parts or {}).items()}
        self._record(values, entry["step"], flush=True)
        self.samples, self.waited, self.since = 0, 0.0, time.perf_counter()  # evaluation is not training time
        shown = ", ".join(f"{name.removeprefix('loss_')} {value:.4f}" for name, value in (parts or {}).items())
        train = f"{entry['train_loss']:.4f}" + (f" ({shown})" if shown else "")
        results = ""
        for split, metrics in splits.items():
            loss = f"loss {metrics['loss']:.4f}  " if "loss" in metrics and "loss" not in self.scores else ""
            results += f"{split} {loss}{score_text(metrics, self.scores)}  "
        self.note(
            f"epoch {entry['epoch']:g}/{self.epochs}  train loss {train}  {results}"
            f"lr {entry['lr']:.2e}  {entry['seconds']:.0f} s"
        )

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar and close tensorboard's files."""
        self.bar.stop()
        threading.excepthook = self.hook_before
        if self.writer is not None:
            try:
                self.writer.close()
            except Exception as e:
                self._lose(e)

    def _record(self, values: dict[str, float], step: int, *, flush: bool = False) -> None:
        try:
            if self.writer is not None:
                for name, value in values.items():
                    self.writer.add_scalar(name, value, step)
                if flush:
                    self.writer.flush()
        except Exception as e:  # it raises the errors of its thread again
            self._lose(e)

    def _lose(self, error: Exception) -> None:
        """Training continues without tensorboard's curves."""
        self.writer = None
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        self.note(f"warning: tensorboard's files cannot be written any more: {why}")

    def _thread_failed(self, args: threading.ExceptHookArgs) -> None:
        """No traceback for tensorboard's own thread: its next call raises the error again."""
        if not type(args.thread).__module__.startswith("tensorboard"):
            self.hook_before(args)


def score_text(metrics: Mapping[str, Any], scores: Mapping[str, Score]) -> str:
    """The scores among some metrics in one line, as "top-1 98.10 %  top-5 99.90 %"."""
    return "  ".join(f"{score.label} {score.text(metrics[name])}" for name, score in scores.items() if name in metrics)
