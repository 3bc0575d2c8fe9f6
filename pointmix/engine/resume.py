"""A run saved and restored as a whole: weights, optimizer, schedule, random states and train state."""

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
from pointmix.engine.epochs import keep_epoch
from pointmix.engine.run import Run, TrainState
from pointmix.engine.validate import check_state
from pointmix.tasks.base import task_of
from pointmix.tasks.config import RunConfig, as_plain, changed_key, is_longer
from pointmix.utils.messages import one_line

# Keys of metrics.json that are read when the same command meets a finished run, and their types.
METRICS_KEYS: dict[str, type] = {
    "test": dict,
    "more_tests": dict,
    "scores": dict,
    "selected": dict,
    "model": dict,
    "info": dict,
}
METRICS_KEYS |= {"task": str, "select": str, "monitor": str, "data": str, "unit": str, "steps": int, "parameters": int}
METRICS_KEYS |= {"epochs": float, "seconds": float, "pictures": list}


def all_skipped(run: Run) -> list[tuple[str, str]]:
    """(file, reason) of every damaged sample that any process has met since the run began, also before it resumed."""
    loaders = [loader for loader in (run.splits.train, run.splits.val, run.splits.test) if loader is not None]
    own = [(file, reason) for loader in loaders for file, reason in loader.failed.items()]
    return sorted({*map(tuple, run.state.skipped), *gather_object(own)})


def save_run(run: Run, *, mid_epoch: bool) -> None:
    """Write the state of all processes; between epochs the place in the data is the start of the next epoch."""
    accelerator, now = run.accelerator, run.state
    loader = run.splits.train.state_dict() if mid_epoch else None
    own = {"rng": states.rng_state(), "loader": states.plain(loader), "losses": now.losses}
    parts = gather_object([own])
    now.skipped = all_skipped(run)
    if (name := not_finite(run)) is not None:
        raise FloatingPointError(f"{name} is not finite at step {now.step}; {last_good(run.folder)}")
    if not accelerator.is_main_process:
        return
    folder = run.folder / states.FOLDER
    if run.lock is not None:
        run.lock.check()
    if now.best is not None and states.best_step(run.best_file) != now.best["step"]:  # the best step is this one
        run.best_file = states.save_best(folder, run.eval_model, run.info, step=now.step)
    if not mid_epoch:
        keep_epoch(run)  # before the state: a run killed in between ends this epoch again
    state = {
        "task": run.task.name,
        "config": as_plain(run.cfg),
        "total_steps": run.total_steps,
        "train_state": {key: value for key, value in asdict(now).items() if key != "losses"},
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
    """Name of the first tensor of weights, averages or optimizer that is not finite. The device is waited for once."""
    parts = _state_dicts(run)
    tensors = {f"weight {key}": value for key, value in parts["model"].items()}
    tensors |= {f"average of {key}": value for key, value in (parts["ema"] or {}).items()}
    for number, values in parts["optimizer"]["state"].items():
        tensors |= {f"optimizer's {key} of parameter {number}": value for key, value in values.items()}
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor) and v.is_floating_point() and v.numel()}
    finite = torch.stack([_is_finite(value).to(run.accelerator.device) for value in tensors.values()]).tolist()
    return None if all(finite) else list(tensors)[finite.index(False)]


def _is_finite(x: torch.Tensor) -> torch.Tensor:
    """Whether all values are finite, on the device: the extremes are NaN or infinite if any value is."""
    low, high = x.detach().aminmax()
    return low.isfinite() & high.isfinite()


def previous_state(
    cfg: RunConfig, run_folder: Path, *, processes: int, quick: bool = False
) -> tuple[dict[str, Any], states.Saved] | None:
    """The state from which a run resumes, if there is one.

    Args:
        quick: see `states.load_state`.

    Raises:
        ValueError: it is of another task, configuration or total batch, or none is whole; one line.
    """
    folder = run_folder / states.FOLDER
    hint = "give another --output_dir, or --restart true to start over"
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
    config, parts, task = state["config"], state.get("processes"), state.get("task")
    if task is None:
        raise ValueError(f"{where} does not name its task: an earlier version wrote it; {hint}")
    if task != (own := task_of(cfg).name):
        raise ValueError(f"{where} is of the task {one_line(str(task), 60)}, this is a run of {own}; {hint}")
    if not isinstance(config, dict) or not isinstance(parts, list):
        raise ValueError(f"{where} is not the state of a run: config or processes are missing; {hint}")
    pairs = (config, len(parts)), (vars(cfg), processes)
    before, now = ((c.get("batch_size", 0), c.get("grad_accum_steps", 0), n) for c, n in pairs)
    if before != now and all(isinstance(n, int) for n in before):
        if math.prod(before) == math.prod(now):  # the same samples a step, in other batches
            config = config | {"batch_size": cfg.batch_size, "grad_accum_steps": cfg.grad_accum_steps}
        elif before[2] != now[2]:
            shapes = " and now ".join("{} x {} x {}".format(*shape) for shape in (before, now))
            what = f"batch_size x grad_accum_steps x processes was {shapes}"
            raise ValueError(f"{where} is of another total batch: {what}; give the same total, or {hint}")
    if (changed := changed_key(config, cfg)) is not None:
        raise ValueError(f"{where} is of another configuration: {changed}; {hint}")
    return state, saved


def finished_metrics(cfg: RunConfig, folder: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a run that has nothing left to do, or None."""
    path = folder / "metrics.json"
    if not path.exists() or not (folder / checkpoint.FINAL).exists():
        return None
    try:
        metrics = json.loads(path.read_text())
        if not isinstance(metrics, dict) or not all(
            isinstance(metrics.get(k), kind) for k, kind in METRICS_KEYS.items()
        ):
            raise ValueError("it holds no metrics of a run")
    except ValueError as e:
        warnings.warn(f"{path} is damaged and is written anew: {e}", stacklevel=2)
        return None
    if is_longer(state["config"], cfg):
        return None
    wanted = min(state["total_steps"], cfg.max_steps or state["total_steps"])
    done = metrics["steps"] == state["train_state"]["step"] >= wanted
    wanted_tests = task_of(cfg).more_tests(cfg, nn.Identity())
    return metrics if done and metrics["more_tests"].keys() == wanted_tests.keys() else None


def restore_run(run: Run, state: dict[str, Any], saved: states.Saved) -> None:
    """Restore a run from a state; nothing is changed unless all of the state is right.

    Raises:
        ValueError: a part is missing, of a wrong kind or size, or of another run; one line.
    """
    source = run.folder / states.FOLDER / saved.file
    check_state(run, state, source=source)
    parts, index = state["processes"], run.accelerator.process_index
    if len(parts) == run.accelerator.num_processes:
        losses = parts[index]["losses"]
    else:  # the mean over the earlier processes, step by step
        losses = [sum(step) / len(step) for step in zip(*(part["losses"] for part in parts), strict=True)]
    run.model.load_state_dict(state["model"])
    if run.ema is not None:
        run.ema.module.load_state_dict(state["ema"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.state = TrainState(**state["train_state"], losses=losses)
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
    path = run.folder / states.FOLDER / str(run.best_file)
    expected = None if run.state.best is None else run.state.best["step"]
    if states.best_step(path.name) != expected:
        raise ValueError(f"the best weights are {path}, expected those of step {expected}")
    states.check_file(path)
    checkpoint.load_weights(run.model, load_file(path), source=path)


def last_good(run_folder: Path) -> str:
    """The checkpoint from which a failed run can be resumed, for a message."""
    folder = run_folder / states.FOLDER
    try:
        state, saved = states.load_state(folder)
    except (ValueError, OSError):
        return "no checkpoint was saved before"
    return f"the last good checkpoint is {folder / saved.file}, of step {state['train_state']['step']}"
