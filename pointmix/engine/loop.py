"""The training loop: steps and validations, with checkpoints between them."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator

from pointmix.data.dataset import seed_all
from pointmix.engine import states
from pointmix.engine.log import Log
from pointmix.engine.resume import last_good, save_run
from pointmix.engine.run import Run, evaluate_run, numbers
from pointmix.engine.signals import Stopped


def fit(run: Run, log: Log, parts: list[dict[str, Any]] | None, caught: list[int]) -> None:
    """Train to the last step.

    Args:
        parts: what each process saved ("processes" of a state), if the run is resumed.
        caught: signals that came in; the run stops when there is one.

    Raises:
        Stopped: after a signal, with the state saved.
        FloatingPointError: the loss is not finite.
    """
    state, cfg, accelerator = run.state, run.cfg, run.accelerator
    last_save = time.monotonic()
    started = time.perf_counter() - state.seconds
    while state.step < run.last_step or not _is_validated(run):
        run.splits.train.set_epoch(state.epoch)
        batches: Iterator[object] = iter(())
        if state.update < run.updates_per_epoch:  # else the run was stopped between last step and validation
            if parts is not None and parts[0]["loader"] is not None:  # the same in all processes
                run.splits.train.load_state_dict(parts[0]["loader"])
            batches = iter(run.splits.train)
        if parts is not None:
            _set_random_states(run, parts)
            parts = None
        run.wrapped.train()
        pending: list[torch.Tensor] = []  # losses that are still on the device
        while state.step < run.last_step and state.update < run.updates_per_epoch:
            before = time.perf_counter()
            group = list(islice(batches, cfg.grad_accum_steps))
            waited = time.perf_counter() - before
            if not group:
                done = f"{state.update} of {run.updates_per_epoch}"
                raise ValueError(f"the loader ended after {done} steps of the epoch")
            pending.append(train_step(run, group))
            state.seconds, state.waited = time.perf_counter() - started, state.waited + waited
            samples = sum(run.task.num_samples(batch) for batch in group)
            log.step(state.step, samples * accelerator.num_processes, waited=waited)
            point = state.step % cfg.log_every == 0 or state.step == run.last_step
            if point or accelerator.device.type == "cpu":
                _fetch_losses(run, pending)
            if point:
                last = state.curve[-1][0] if state.curve else 0
                recent = state.losses[int(last) - state.step :]
                state.curve.append([state.step, sum(recent) / len(recent), run.lr])
                log.point(state.step, sum(recent) / len(recent), run.lr)
            stop, late = False, False
            if accelerator.num_processes == 1 or point:  # agreement of several processes costs a message
                late = cfg.save_every_seconds is not None and time.monotonic() - last_save >= cfg.save_every_seconds
                stop, late = _any_process(accelerator, bool(caught), late)
            if stop or late or (cfg.save_every_steps and state.step % cfg.save_every_steps == 0):
                _fetch_losses(run, pending)
                save_run(run, mid_epoch=True)
                last_save = time.monotonic()
            if stop:
                raise _stopped(run, caught)
        _fetch_losses(run, pending)
        _validate(run, log)
        state.seconds = time.perf_counter() - started
        mid_epoch = state.update < run.updates_per_epoch
        if not mid_epoch:
            state.epoch, state.update, state.losses = state.epoch + 1, 0, []
            if run.scheduler is not None:
                run.scheduler.step(state.epoch)
        save_run(run, mid_epoch=mid_epoch)
        last_save = time.monotonic()
        if _any_process(accelerator, bool(caught))[0]:  # a signal during validation
            raise _stopped(run, caught)


def train_step(run: Run, group: Sequence[object]) -> torch.Tensor:
    """One optimizer step over a group of batches; returns this process's mean loss, on the device."""
    accelerator, total = run.accelerator, torch.zeros((), device=run.accelerator.device)
    for i, batch in enumerate(group):
        batch = run.task.to_device(batch, accelerator.device)
        last = i == len(group) - 1
        with nullcontext() if last else accelerator.no_sync(run.wrapped):
            found = run.loss(run.wrapped, batch)
            if isinstance(found, dict):
                run.parts.add(found)
                found = torch.stack([part.float() for part in found.values()]).sum()
            loss = found / len(group)
            accelerator.backward(loss)
        total = total + loss.detach()
    if run.cfg.optim.clip_grad is not None:
        accelerator.clip_grad_norm_(run.wrapped.parameters(), run.cfg.optim.clip_grad)
    run.optimizer.step()
    run.optimizer.zero_grad()
    _average_statistics(run)
    state = run.state
    state.step, state.update = state.step + 1, state.update + 1
    if run.ema is not None:
        run.ema.update(run.model, step=state.step)
    if run.scheduler is not None:
        run.scheduler.step_update(state.step)
    return total


def _average_statistics(run: Run) -> None:
    """Set BatchNorm's running statistics to their mean over processes, so that all hold the same network."""
    if run.accelerator.num_processes == 1:
        return
    training = (module for module in run.model.modules() if module.training)  # not the frozen ones
    own = [b for m in training for name, b in m.named_buffers(recurse=False) if "running_" in name]  # each (channels,)
    if own:
        means = run.accelerator.reduce(torch.cat(own), "mean").split([len(buffer) for buffer in own])
        for buffer, mean in zip(own, means, strict=True):
            buffer.copy_(mean)


def _fetch_losses(run: Run, pending: list[torch.Tensor]) -> None:
    """Move losses from the device to the state; refuse those that are not finite."""
    first = run.state.step - len(pending) + 1
    values = torch.stack(pending).tolist() if pending else []
    pending.clear()
    for step, loss in enumerate(values, start=first):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; {last_good(run.folder)}")
    run.state.losses += values


def _is_validated(run: Run) -> bool:
    history = run.state.history
    return bool(history) and history[-1]["step"] == run.state.step


def _validate(run: Run, log: Log) -> None:
    """Validate, add to the history, and mark the best entry so far, or the newest where there is no validation."""
    state, select = run.state, run.cfg.select
    loaders = {"val": run.splits.val} | ({"test": run.splits.test} if select == "test" else {})
    results = {k: None if v is None else numbers(evaluate_run(run, run.eval_model, v)) for k, v in loaders.items()}
    train_loss = torch.tensor(sum(state.losses) / len(state.losses), device=run.accelerator.device)
    entry: dict[str, Any] = {
        "epoch": state.step / run.updates_per_epoch,
        "step": state.step,
        "train_loss": run.accelerator.reduce(train_loss, "mean").item(),
        **results,
        "lr": run.lr,
        "seconds": round(state.seconds, 3),
        "waited": round(state.waited, 3),
    }
    state.history.append(entry)
    log.epoch(entry, run.parts.take(run.accelerator))
    key, result = run.task.monitor, results.get(select)
    if state.best is None or result is None:
        state.best = entry
    elif run.task.scores[key].is_better(result[key], state.best[select][key]):
        state.best = entry  # save_run, which comes next, writes the weights


def _set_random_states(run: Run, parts: list[dict[str, Any]]) -> None:
    accelerator = run.accelerator
    if len(parts) == accelerator.num_processes:
        states.set_rng_state(parts[accelerator.process_index]["rng"])
        return
    seed_all(run.cfg.seed, run.state.step, accelerator.process_index)  # different in each process
    if torch.cuda.is_available():
        torch.cuda.manual_seed(torch.initial_seed())


def _stopped(run: Run, caught: list[int]) -> Stopped:
    name = signal.Signals(caught[0]).name if caught else "a signal to another process"
    without = ", without --restart," if run.cfg.restart else ""
    place = run.folder / states.FOLDER
    note = f"stopped by {name} at step {run.state.step}; the same command{without} resumes from {place}"
    return Stopped(caught[0] if caught else signal.SIGTERM, note)


def _any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Each flag, true if it is true in any process."""
    if accelerator.num_processes == 1:
        return list(flags)
    sums = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device), "sum")
    return [s > 0 for s in sums.tolist()]
