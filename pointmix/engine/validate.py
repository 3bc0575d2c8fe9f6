"""A saved state is checked field by field before any of it is used."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pointmix.engine import states
from pointmix.engine.checkpoint import fit_weights
from pointmix.tasks.config import is_longer

if TYPE_CHECKING:
    from pointmix.engine.run import Run


def check_state(run: Run, state: dict[str, Any], *, source: str | Path) -> None:
    """Check that a state holds all that `run` needs: types, sizes, finite numbers, no contradictions.

    Raises:
        ValueError: one line that names the first field that is wrong, and what was expected.
    """
    try:
        _check_parts(run, state, source)
        _check_train_state(run, state)
        _check_optimizer(run.optimizer, state["optimizer"])
        for name, own in (("scheduler", run.scheduler), ("scaler", run.accelerator.scaler)):
            if own is not None:
                _check_keys(name, state[name], own.state_dict())
                _expect(_finite(state[name]), f"{name} has numbers that are not finite")
        _check_processes(run, state)
    except _Wrong as e:
        raise ValueError(f"{source} is not a whole state of this run: {e}") from e


class _Wrong(Exception):
    pass


def _expect(right: Any, what: str) -> None:
    if not right:
        raise _Wrong(what)


def _check_parts(run: Run, state: dict[str, Any], source: str | Path) -> None:
    given = {"optimizer": run.optimizer, "scheduler": run.scheduler, "scaler": run.accelerator.scaler, "ema": run.ema}
    for key in ("model", "train_state", "total_steps", "processes", *given):
        _expect(key in state, f"{key} is missing")
    for key, own in given.items():
        what = "missing" if own is not None else "set, but this run has none"
        _expect((state[key] is None) == (own is None), f"{key} is {what}")
    total = state["total_steps"]
    _expect(_count(total), f"total_steps is {total!r}, expected a number of steps")
    if total != run.total_steps and not (total < run.total_steps and is_longer(state["config"], run.cfg)):
        raise ValueError(f"{source} is of other data: {total} steps in all, now {run.total_steps}")
    networks: list[tuple[str, nn.Module | None]] = [("model", run.model), ("ema", run.ema and run.ema.module)]
    for name, own in networks:
        if own is None:
            continue
        weights = state[name]
        _expect(isinstance(weights, dict), f"{name} is a {type(weights).__name__}, expected names and tensors")
        for key, value in weights.items():
            _expect(isinstance(value, Tensor), f"{name} has {key!r}: {type(value).__name__}, expected a tensor")
        fit_weights(own, weights, source=source)
        for key, value in own.state_dict().items():
            dtype = weights[key].dtype
            _expect(dtype == value.dtype, f"{name} has {key} in {dtype}, expected {value.dtype}")
            _expect(_finite(weights[key]), f"{name} has {key} that is not finite")


def _check_train_state(run: Run, state: dict[str, Any]) -> None:
    saved = state["train_state"]
    own = {field.name for field in dataclasses.fields(run.state)} - {"losses"}
    _check_keys("train_state", saved, own)
    for key in ("epoch", "update", "step"):
        _expect(_count(saved[key]), f"train_state.{key} is {saved[key]!r}, expected a whole number from 0 on")
    for key in ("seconds", "waited"):
        _expect(_number(saved[key]) and saved[key] >= 0, f"train_state.{key} is {saved[key]!r}, expected seconds")
    for key in ("curve", "history", "skipped"):
        _expect(isinstance(saved[key], list), f"train_state.{key} is a {type(saved[key]).__name__}, expected a list")
    step, steps = saved["step"], run.updates_per_epoch
    what = f"step {step} is not update {saved['update']} of epoch {saved['epoch']} with {steps} steps an epoch"
    _expect(step == saved["epoch"] * steps + saved["update"] and saved["update"] <= steps, f"train_state: {what}")
    _expect(step <= run.total_steps, f"train_state.step is {step}, expected at most {run.total_steps}")
    points = all(isinstance(p, list | tuple) and len(p) == 3 and _count(p[0]) and _finite(p) for p in saved["curve"])
    _expect(points, "train_state.curve has a point that is not step, loss and learning rate")
    last, monitor = 0, run.task.monitor
    for entry in saved["history"]:
        named = isinstance(entry, dict) and {"epoch", "step", "train_loss", "val", "lr", "seconds"} <= entry.keys()
        _expect(named and _count(entry["step"]), "train_state.history has an entry without step, train_loss, val or lr")
        _expect(last < entry["step"] <= step, f"train_state.history has step {entry['step']} after {last}, of {step}")
        own_numbers = {key: value for key, value in entry.items() if key not in ("val", "test")}
        _expect(_finite(own_numbers), f"train_state.history has numbers that are not finite, at step {entry['step']}")
        for split in ("val", "test"):  # their metrics may be infinite
            result = entry.get(split)
            scored = result is None or (isinstance(result, dict) and type(result.get(monitor)) in (int, float))
            _expect(scored, f"train_state.history has no {split} {monitor} at step {entry['step']}")
        last = entry["step"]
    _expect(
        last >= saved["epoch"] * steps,
        f"train_state.history ends at step {last}, but epoch {saved['epoch']} has ended",
    )
    best, entries = saved["best"], [repr(entry) for entry in saved["history"]]  # repr, as NaN is not equal to itself
    _expect(repr(best) in entries if entries else best is None, "train_state.best is no entry of train_state.history")
    kept = states.best_step(state["best_file"])
    expected = None if best is None else best["step"]
    _expect(kept == expected, f"the best weights are {state['best_file']}, expected those of step {expected}")
    pairs = all(isinstance(p, list | tuple) and [type(text) for text in p] == [str, str] for p in saved["skipped"])
    _expect(pairs, "train_state.skipped has an entry that is not file and reason")


def _check_optimizer(own: Any, state: Any) -> None:
    _check_keys("optimizer", state, {"state", "param_groups"})
    groups, ours = state["param_groups"], own.state_dict()["param_groups"]
    _expect(isinstance(groups, list) and len(groups) == len(ours), f"optimizer has not {len(ours)} param_groups")
    for i, (group, our) in enumerate(zip(groups, ours, strict=True)):
        right = isinstance(group, dict) and group.get("params") == our["params"] and _number(group.get("lr"))
        right = right and all(_finite(value) or value == our.get(key) for key, value in group.items())
        _expect(right, f"optimizer.param_groups[{i}] has not the parameters and numbers expected")
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]
    _expect(isinstance(state["state"], dict), "optimizer.state is no dict")
    for number, values in state["state"].items():
        _expect(_count(number) and number < len(parameters), f"optimizer.state has parameter {number!r}")
        _expect(isinstance(values, dict), f"optimizer.state of parameter {number} is no dict")
        for key, value in values.items():
            what = f"optimizer.state has {key!r} of parameter {number}"
            _expect(isinstance(key, str) and _finite(value), f"{what} that is not finite")
            shape = tuple(parameters[number].shape)
            if isinstance(value, Tensor) and value.ndim == len(shape):
                fits = all(a in (1, b) for a, b in zip(value.shape, shape, strict=True))
                _expect(fits, f"{what} of shape {tuple(value.shape)}, expected {shape}")


def _check_processes(run: Run, state: dict[str, Any]) -> None:
    parts, saved, train = state["processes"], state["train_state"], run.splits.train
    _expect(parts, "processes is empty")
    for i, part in enumerate(parts):
        _check_keys(f"processes[{i}]", part, {"rng", "loader", "losses"})
        losses, rng = part["losses"], part["rng"]
        right = isinstance(losses, list) and len(losses) == saved["update"] and all(map(_number, losses))
        _expect(right, f"processes[{i}].losses are not the {saved['update']} losses of the epoch")
        _expect(isinstance(rng, dict), f"processes[{i}].rng is no dict")
        try:
            random.Random().setstate((rng["python"][0], tuple(rng["python"][1]), rng["python"][2]))
            kind, keys, *rest = rng["numpy"]
            np.random.RandomState().set_state((kind, keys.numpy().astype(np.uint32), *rest))
            torch.Generator().set_state(rng["torch"])
            if "cuda" in rng and torch.cuda.is_available():
                torch.Generator("cuda").set_state(rng["cuda"])
        except Exception as e:  # any kind of error
            raise _Wrong(f"processes[{i}].rng is no state of the random generators: {str(e).splitlines()[0]}") from e
        if saved["update"] == 0:
            _expect(part["loader"] is None, f"processes[{i}].loader is set at the start of an epoch")
            continue
        _expect(isinstance(part["loader"], dict), f"processes[{i}].loader is missing in the middle of an epoch")
        try:
            place = train.position(part["loader"])
        except ValueError as e:
            raise _Wrong(f"processes[{i}].loader: {e}") from e
        expected = (saved["epoch"], min(saved["update"] * run.cfg.grad_accum_steps, len(train)))
        _expect(place == expected, f"processes[{i}].loader is at epoch and batch {place}, expected {expected}")
    size, batch_size = len(train.samples), state["config"].get("batch_size")
    right = _count(batch_size) and batch_size > 0
    _expect(right, f"config.batch_size is {batch_size!r}, expected a whole number from 1 on")
    before, now = batch_size * len(parts), run.cfg.batch_size * run.accelerator.num_processes
    used, uses = size // before * before, size // now * now
    what = (
        f"an epoch took {used} of {size} samples, with this batch_size, grad_accum_steps and processes it takes {uses}"
    )
    _expect(used == uses, what)


def _check_keys(name: str, saved: Any, own: Any) -> None:
    _expect(isinstance(saved, dict), f"{name} is a {type(saved).__name__}, expected a dict")
    for key in sorted(own):
        _expect(key in saved, f"{name} has no {key!r}")
    for key in saved:
        _expect(key in own, f"{name} has {key!r}, expected {', '.join(sorted(own))}")


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _finite(value: Any) -> bool:
    """Whether no number in a nested value is infinite or NaN."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
