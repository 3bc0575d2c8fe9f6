"""The end of a run: the look at the test data, and the files that it leaves."""

from __future__ import annotations

import json
import platform
from typing import Any

import torch
from rich.console import Console

import pointmix
from pointmix.engine import checkpoint
from pointmix.engine.config import as_plain
from pointmix.engine.report import draw_curves, show_result
from pointmix.engine.run import Run, all_skipped, evaluate_run, load_best, model_info, numbers
from pointmix.explain.confusion import draw_confusion


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
    }
    if not accelerator.is_main_process:
        return metrics
    console = Console(highlight=False)
    checkpoint.save_model(out / checkpoint.FINAL, run.model, model_info(run))
    by = run.task.select_by
    draw_curves(out / "curves.png", at.curve, at.history, select=cfg.select, metric=(by, run.task.shares[by]))
    if "confusion" in test:
        draw_confusion(out / "confusion.png", test["confusion"], run.splits.classes)
    _draw_clusters(run, console)
    checkpoint.write_text(out / "metrics.json", json.dumps(metrics, indent=1))  # last: it says that all is done
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


def _draw_clusters(run: Run, console: Console) -> None:
    if not any(hasattr(run.model, method) for method in run.cfg.drawn_by):
        console.print(f"no clusters.png: {run.cfg.model.name} has no explain()", markup=False)
        return
    run.cfg.draw_clusters(run.model.eval(), run.splits, run.out / "clusters.png")


def _versions() -> dict[str, str]:
    import accelerate
    import timm
    import torchvision

    libraries = (pointmix, torch, torchvision, timm, accelerate)
    found = {lib.__name__: str(getattr(lib, "__version__", "unknown")) for lib in libraries}
    return {"python": platform.python_version(), **found}
