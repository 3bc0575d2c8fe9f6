"""The end of a run: the look at the test data, and the files that it leaves."""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import pointmix
from pointmix.engine import checkpoint
from pointmix.engine.config import as_plain
from pointmix.engine.report import draw_curves, show_result
from pointmix.engine.resume import all_skipped, load_best
from pointmix.engine.run import Run, evaluate_run, model_info, numbers
from pointmix.explain.confusion import draw_confusion
from pointmix.nn.block import Block
from pointmix.utils import atomic

PICTURES = CURVES, CONFUSION, CLUSTERS = "curves.png", "confusion.png", "clusters.png"


def finish(run: Run) -> dict[str, Any]:
    """Test the chosen weights and write the files of the run folder."""
    at, cfg, accelerator, out = run.at, run.cfg, run.accelerator, run.out
    load_best(run)
    test = evaluate_run(run, run.model, run.splits.test)
    more = {name: evaluate_run(run, net, run.splits.test) for name, net in cfg.more_tests(run.model).items()}
    metrics = {
        "test": test,
        "more_tests": {name: numbers(found) for name, found in more.items()},
        "select": cfg.select,
        "select_by": run.task.select_by,
        "shares": run.task.shares,
        "selected": at.best,
        **_best_on_test(run),
        "history": at.history,
        "model": {"name": cfg.model.name, "kwargs": as_plain(cfg)["model"]["kwargs"]},
        "data": cfg.data_name,
        "unit": cfg.unit,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "classes": run.splits.classes,
        "epochs": at.step / run.updates_per_epoch,
        "steps": at.step,
        "seconds": round(at.seconds, 3),
        "waited": round(at.waited, 3),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device.type),
        "skipped": all_skipped(run),
        "versions": _versions(),
        "pictures": _pictures(run, test),
    }
    if not accelerator.is_main_process:
        return metrics
    console = Console(highlight=False)
    checkpoint.save_model(out / checkpoint.FINAL, run.model, model_info(run))
    atomic.write_text(out / "metrics.json", json.dumps(metrics, indent=1))  # it says that all is done
    draw_pictures(run, metrics)
    if metrics["skipped"]:
        what = f"{len(metrics['skipped'])} {cfg.unit}"
        console.print(f"{what} could not be read and were skipped; metrics.json names them")
    show_result(metrics, out, console=console)
    return metrics


def _best_on_test(run: Run) -> dict[str, Any]:
    """With `select` test: the last epoch's result, and each metric's best over the epochs, whatever epoch it was in."""
    if run.cfg.select != "test":
        return {}
    tests = [entry["test"] for entry in run.at.history]
    return {"last": tests[-1], "best_on_test": {name: max(t[name] for t in tests) for name in run.task.shares}}


def _pictures(run: Run, test: dict[str, Any]) -> list[str]:
    """The pictures that are drawn of a run; says why there is none of clusters."""
    name, why = run.cfg.model.name, None
    blocks = [module for module in run.model.modules() if isinstance(module, Block)]
    if not any(hasattr(run.model, method) for method in run.cfg.drawn_by):
        why = f"{name} has no explain()"
    elif blocks and all(block.mixer is None for block in blocks):
        why = f"{name} clusters in none of its blocks"
    if why is not None and run.accelerator.is_main_process:
        Console(highlight=False).print(f"no {CLUSTERS}: {why}", markup=False, soft_wrap=True)
    return [CURVES, *([CONFUSION] if "confusion" in test else []), *([CLUSTERS] if why is None else [])]


def missing_pictures(metrics: dict[str, Any], out: Path) -> list[str]:
    """Those that a finished run lacks: it was ended between its results and its pictures, or drawing failed."""
    return [name for name in metrics.get("pictures", []) if not (out / name).exists()]


def draw_pictures(run: Run, metrics: dict[str, Any]) -> None:
    """Draw what is missing of a run that holds its chosen weights. What fails is a warning: the results are written."""
    at, by = run.at, metrics["select_by"]
    draw = {
        CURVES: lambda path: draw_curves(
            path, at.curve, at.history, select=metrics["select"], metric=(by, metrics["shares"][by])
        ),
        CONFUSION: lambda path: draw_confusion(path, metrics["test"]["confusion"], metrics["classes"]),
        CLUSTERS: lambda path: _draw_clusters(run, path),
    }
    for name in missing_pictures(metrics, run.out):
        try:
            draw[name](run.out / name)
        except Exception as e:  # whatever a library raises
            why = f"{type(e).__name__}: {' '.join(str(e).split())}"
            warnings.warn(f"{name} was not drawn, the same command tries again: {why}", stacklevel=2)


def _draw_clusters(run: Run, path: Path) -> None:
    run.cfg.draw_clusters(run.model.eval(), run.splits, path)


def _versions() -> dict[str, str]:
    import accelerate
    import timm
    import torchvision

    libraries = (pointmix, torch, torchvision, timm, accelerate)
    found = {lib.__name__: str(getattr(lib, "__version__", "unknown")) for lib in libraries}
    return {"python": platform.python_version(), **found}
