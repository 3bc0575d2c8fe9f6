"""A run saved, found again and restored, as one: its weights, optimizer, schedule, random states and progress."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from torch import nn

from pointmix.engine import checkpoint, states
from pointmix.engine.config import RunConfig, as_plain, changed_key, is_longer
from pointmix.engine.run import Progress, Run, model_info
from pointmix.engine.validate import check_state

# What is used of metrics.json when a finished run is met again, and of what kinds.
WRITTEN = {"test": dict, "more_tests": dict, "shares": dict, "selected": dict, "model": dict}
WRITTEN |= {"select": str, "select_by": str, "data": str, "steps": int, "parameters": int, "epochs": float}
WRITTEN |= {"seconds": float, "classes": list, "pictures": list}


def all_skipped(run: Run) -> list[tuple[str, str]]:
    """(file, reason) of every damaged sample that any process has met since the run began, whatever resumed it."""
    return sorted({*map(tuple, run.at.skipped), *gather_object(run.splits.skipped())})


def save_run(run: Run, *, mid_epoch: bool) -> None:
    """Write the state of all processes; between epochs the place in the data is the next epoch's start."""
    accelerator, at = run.accelerator, run.at
    loader = run.splits.train.state_dict() if mid_epoch else None
    own = {"rng": states.rng_state(), "loader": states.plain(loader), "losses": at.losses}
    parts = gather_object([own])
    at.skipped = all_skipped(run)
    if (name := not_finite(run)) is not None:
        raise FloatingPointError(f"{name} is not finite at step {at.step}; {last_good(run.out)}")
    if not accelerator.is_main_process:
        return
    folder = run.out / states.FOLDER
    if run.lock is not None:
        run.lock.check()
    if at.best is not None and states.best_step(run.best_file) != at.best["step"]:  # those of this very step
        run.best_file = states.save_best(folder, run.chosen, model_info(run), step=at.step)
    state = {
        "config": as_plain(run.cfg),
        "total_steps": run.total_steps,
        "progress": {key: value for key, value in asdict(at).items() if key != "losses"},
        "best_file": run.best_file,
        **_state_dicts(run),
        "processes": parts,
    }
    run.saved = states.save_state(folder, state, before=run.saved)


def _state_dicts(run: Run) -> dict[str, Any]:
    parts = {"optimizer": run.optimizer, "scheduler": run.scheduler, "scaler": run.accelerator.scaler}
    parts |= {"model": run.model, "ema": None if run.ema is None else run.ema.module}
    return {key: None if part is None else part.state_dict() for key, part in parts.items()}


def not_finite(run: Run) -> str | None:
    """The first tensor of weights, averages or optimizer that is not finite, by its name; one wait for the device."""
    of = _state_dicts(run)
    tensors = {f"weight {key}": value for key, value in of["model"].items()}
    tensors |= {f"average of {key}": value for key, value in (of["ema"] or {}).items()}
    for number, values in of["optimizer"]["state"].items():
        tensors |= {f"optimizer's {key} of parameter {number}": value for key, value in values.items()}
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor) and v.is_floating_point() and v.numel()}
    sizes = torch._foreach_norm(list(tensors.values()), float("inf"))
    finite = torch.stack([size.isfinite().to(run.accelerator.device) for size in sizes])
    return None if finite.all() else list(tensors)[finite.tolist().index(False)]


def previous_state(
    cfg: RunConfig, out: Path, *, processes: int, quick: bool = False
) -> tuple[dict[str, Any], states.Saved] | None:
    """The state that a run goes on from, if there is one; `quick` as in `states.load_state`.

    Raises:
        ValueError: it is of another configuration or total batch, or none is whole; one line.
    """
    folder = out / states.FOLDER
    hint = "give another --out, or --restart true to start anew"
    if cfg.restart:
        return None
    if not states.list_states(folder):
        if (old := folder / "last.pt").exists():
            raise ValueError(f"{old} was written by an earlier version, without a digest; {hint}")
        return None
    try:
        state, saved = states.load_state(folder, quick=quick)
    except ValueError as e:
        raise ValueError(f"{e}; {hint}") from e
    where = folder / saved.file
    config, parts = state["config"], state.get("processes")
    if not isinstance(config, dict) or not isinstance(parts, list):
        raise ValueError(f"{where} is not the state of a run: config or processes are missing; {hint}")
    then, now = ((c.get("batch_size"), c.get("accum"), n) for c, n in ((config, len(parts)), (vars(cfg), processes)))
    if then != now and all(isinstance(n, int) for n in then):
        if math.prod(then) == math.prod(now):  # the same samples a step, otherwise dealt
            config = config | {"batch_size": cfg.batch_size, "accum": cfg.accum}
        elif then[2] != now[2]:
            shapes = " and now ".join("{} x {} x {}".format(*shape) for shape in (then, now))
            what = f"batch_size x accum x processes was {shapes}"
            raise ValueError(f"{where} is of another total batch: {what}; give the same total, or {hint}")
    if (changed := changed_key(config, cfg)) is not None:
        raise ValueError(f"{where} is of another configuration: {changed}; {hint}")
    return state, saved


def finished_metrics(cfg: RunConfig, out: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a run that has nothing left to do, or None."""
    path = out / "metrics.json"
    if not path.exists() or not (out / checkpoint.FINAL).exists():
        return None
    try:
        metrics = json.loads(path.read_text())
        if not isinstance(metrics, dict) or not all(isinstance(metrics.get(k), kind) for k, kind in WRITTEN.items()):
            raise ValueError("it holds no metrics of a run")
    except ValueError as e:
        warnings.warn(f"{path} is damaged and is written anew: {e}", stacklevel=2)
        return None
    if is_longer(state["config"], cfg):
        return None
    wanted = min(state["total_steps"], cfg.max_steps or state["total_steps"])
    done = metrics["steps"] == state["progress"]["step"] >= wanted
    asked = cfg.more_tests(nn.Identity())
    return metrics if done and metrics["more_tests"].keys() == asked.keys() else None


def restore_run(run: Run, state: dict[str, Any], saved: states.Saved) -> None:
    """Put a run where a state left it; nothing is changed unless all of the state is right.

    Raises:
        ValueError: a part is missing, of a wrong kind or size, or of another run; one line.
    """
    source = run.out / states.FOLDER / saved.file
    check_state(run, state, source=source)
    parts, at = state["processes"], run.accelerator.process_index
    if len(parts) == run.accelerator.num_processes:
        losses = parts[at]["losses"]
    else:  # of each step the mean over the processes that there were
        losses = [sum(step) / len(step) for step in zip(*(part["losses"] for part in parts), strict=True)]
    run.model.load_state_dict(state["model"])
    if run.ema is not None:
        run.ema.module.load_state_dict(state["ema"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.at = Progress(**state["progress"], losses=losses)
    run.saved, run.best_file = saved, saved.best


def load_best(run: Run) -> None:
    """Load the weights of the best epoch, as the newest state names them, in every process.

    Raises:
        ValueError: they are not what was written; one line.
        OSError: they cannot be read.
    """
    if run.lock is not None:
        run.lock.check()
    run.best_file = broadcast_object_list([run.best_file])[0]  # the main process has written it
    path = run.out / states.FOLDER / str(run.best_file)
    if states.best_step(path.name) != run.at.best["step"]:
        raise ValueError(f"the best weights are {path}, expected those of step {run.at.best['step']}")
    states.check_file(path)
    checkpoint.load_weights(run.model, load_file(path), source=path)


def last_good(out: Path) -> str:
    """The checkpoint from which a run that failed can go on, for a message."""
    folder = out / states.FOLDER
    try:
        state, saved = states.load_state(folder)
    except (ValueError, OSError):
        return "no checkpoint was saved before"
    return f"the last good checkpoint is {folder / saved.file}, of step {state['progress']['step']}"
