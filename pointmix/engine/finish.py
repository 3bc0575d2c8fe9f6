"""The end of a run: the one look at the test images, and the files that it leaves."""

from __future__ import annotations

import json
import platform
from itertools import islice
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

import pointmix
from pointmix.engine import checkpoint
from pointmix.engine.config import as_plain, data_name
from pointmix.engine.log import draw_curves, show_result
from pointmix.engine.run import Run, all_skipped, evaluate_run, model_info


def finish(run: Run) -> dict[str, Any]:
    """Test the chosen weights, this once, and write the files of the run folder."""
    at, accelerator, out = run.at, run.accelerator, run.out
    accelerator.wait_for_everyone()  # the main process may still be writing the best weights
    checkpoint.load_weights(run.model, load_file(out / checkpoint.BEST), source=out / checkpoint.BEST)
    test = evaluate_run(run, run.model, run.splits.test)
    metrics = {
        "test": test,
        "selected": at.best,
        "history": at.history,
        "model": {"name": run.cfg.model.name, "kwargs": as_plain(run.cfg)["model"]["kwargs"]},
        "data": data_name(run.cfg.data),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "classes": run.splits.classes,
        "epochs": at.step / run.updates_per_epoch,
        "steps": at.step,
        "seconds": round(at.seconds, 3),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device.type),
        "skipped": all_skipped(run),
        "versions": _versions(),
    }
    if not accelerator.is_main_process:
        return metrics
    console = Console(highlight=False)
    checkpoint.save_model(out / checkpoint.FINAL, run.model, model_info(run))
    draw_curves(out / "curves.png", at.curve, at.history)
    _draw_clusters(run, console)
    checkpoint.write_text(out / "metrics.json", json.dumps(metrics, indent=1))  # last: it says that all is done
    if metrics["skipped"]:
        console.print(f"{len(metrics['skipped'])} images could not be read and were skipped; metrics.json names them")
    show_result(metrics, out, console=console)
    return metrics


def _draw_clusters(run: Run, console: Console) -> None:
    if not hasattr(run.model, "explain"):
        console.print(f"no clusters.png: {run.cfg.model.name} has no explain()", markup=False)
        return
    from pointmix.explain import draw_clusters

    first: dict[int, torch.Tensor] = {}  # one test image of each of the first six classes met
    for images, targets in islice(iter(run.splits.test), 32):
        for image, target in zip(images, targets.tolist(), strict=True):
            if len(first) < 6:
                first.setdefault(target, image)
    images = torch.stack(list(first.values())).to(run.accelerator.device)
    splits = run.splits
    model = run.model.eval()
    draw_clusters(
        model, images, run.out / "clusters.png", mean=splits.mean, std=splits.std, classes=splits.classes
    )


def _versions() -> dict[str, str]:
    import accelerate
    import timm
    import torchvision

    libraries = (pointmix, torch, torchvision, timm, accelerate)
    found = {lib.__name__: str(getattr(lib, "__version__", "unknown")) for lib in libraries}
    return {"python": platform.python_version(), **found}
