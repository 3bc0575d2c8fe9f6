"""The end of a run: the test, and the files that it leaves."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from pointmix.engine import checkpoint
from pointmix.engine.report import draw_curves, show_result
from pointmix.engine.resume import all_skipped, load_best
from pointmix.engine.run import Run, evaluate_run, numbers
from pointmix.engine.versions import versions
from pointmix.tasks.config import as_plain
from pointmix.tasks.protocols import Loader, Metrics, Picture
from pointmix.utils import atomic

CURVES = "curves.png"


def finish(run: Run) -> dict[str, Any]:
    """Test the selected weights and write the files of the run folder; returns the content of metrics.json."""
    state, cfg, accelerator, task, folder = run.state, run.cfg, run.accelerator, run.task, run.folder
    load_best(run)
    test = evaluate_run(run, run.model, run.splits.test)
    more = {name: evaluate_run(run, net, run.splits.test) for name, net in task.more_tests(cfg, run.model).items()}
    metrics: dict[str, Any] = {
        "task": task.name,
        "test": test,
        "more_tests": {name: numbers(result) for name, result in more.items()},
        "select": cfg.select,
        "monitor": task.monitor,
        "scores": {name: asdict(score) for name, score in task.scores.items() if name in test},
        "selected": state.best,
        **_best_on_test(run),
        "history": state.history,
        "model": {"name": cfg.model.name, "kwargs": as_plain(cfg)["model"]["kwargs"]},
        "data": cfg.data_name,
        "unit": task.unit,
        "samples": {name: len(loader.samples) for name, loader in _loaders(run).items() if loader is not None},
        "info": run.info,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "epochs": state.step / run.updates_per_epoch,
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "waited": round(state.waited, 3),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device.type),
        "skipped": all_skipped(run),
        "versions": versions(),
        "pictures": [name for name, picture in _pictures(run, test).items() if not isinstance(picture, str)],
    }
    if not accelerator.is_main_process:
        return metrics
    console = Console(highlight=False)
    for name, picture in _pictures(run, test).items():
        (folder / name).unlink(missing_ok=True)  # that of an earlier run
        if isinstance(picture, str):
            console.print(f"no {name}: {picture}", markup=False, soft_wrap=True)
    checkpoint.save_model(folder / checkpoint.FINAL, run.model, run.info)
    atomic.write_text(folder / "metrics.json", json.dumps(metrics, indent=1))  # with it the run is finished
    draw_pictures(run, metrics)
    if metrics["skipped"]:
        count = f"{len(metrics['skipped'])} {task.unit}"
        console.print(f"{count} could not be read and were skipped; metrics.json names them")
    show_result(metrics, folder, console=console)
    return metrics


def _loaders(run: Run) -> dict[str, Loader[object] | None]:
    return {"training": run.splits.train, "validation": run.splits.val, "test": run.splits.test}


def _best_on_test(run: Run) -> dict[str, Any]:
    """With `select` test: the last epoch's result, and each score's best over the epochs, whichever epoch that was."""
    if run.cfg.select != "test":
        return {}
    tests = [entry["test"] for entry in run.state.history]
    best = {}
    for name, score in run.task.scores.items():
        if name in tests[0]:
            best[name] = (max if score.larger_is_better else min)(test[name] for test in tests)
    return {"last": tests[-1], "best_on_test": best}


def _pictures(run: Run, test: Metrics) -> dict[str, Picture]:
    """The pictures of a run that holds its selected weights."""

    def curves(path: Path) -> None:
        monitor = run.task.monitor
        draw_curves(path, run.state, select=run.cfg.select, metric=(monitor, run.task.scores[monitor]))

    return {CURVES: curves, **run.task.pictures(run.model.eval(), run.splits, run.info, test)}


def missing_pictures(metrics: dict[str, Any], folder: Path) -> list[str]:
    """Pictures that a finished run lacks: it was stopped after its results, or drawing failed."""
    return [name for name in metrics.get("pictures", []) if not (folder / name).exists()]


def draw_pictures(run: Run, metrics: dict[str, Any]) -> None:
    """Draw what is missing, with the selected weights. A failure is a warning: the results are written already."""
    pictures = _pictures(run, metrics["test"])
    for name in missing_pictures(metrics, run.folder):
        try:
            _draw(pictures[name], run.folder / name)
        except Exception as e:  # any library may raise anything
            why = f"{type(e).__name__}: {' '.join(str(e).split())}"
            warnings.warn(f"{name} was not drawn, the same command tries again: {why}", stacklevel=2)


def _draw(picture: Picture, path: Path) -> None:
    if not isinstance(picture, str):
        picture(path)
