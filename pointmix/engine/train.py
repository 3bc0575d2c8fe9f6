"""The training loop: one process or many, exactly resumable.

All that decides how training goes on (weights, average, optimizer, schedule, scaler, random states, place in the data)
is in one file, written between optimizer steps, see `states`. The data and evaluation leave the random states as they
are: augmentation has seeds of its own.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from rich.console import Console

from pointmix.data.dataset import seed_all
from pointmix.engine import checkpoint, states
from pointmix.engine.config import RunConfig, as_plain, run_folder
from pointmix.engine.determinism import deterministic
from pointmix.engine.finish import PICTURES, draw_pictures, finish, missing_pictures
from pointmix.engine.lock import RunLock, lock
from pointmix.engine.log import Log
from pointmix.engine.report import show_result, start_lines
from pointmix.engine.resume import finished_metrics, last_good, load_best, previous_state, restore_run, save_run
from pointmix.engine.run import Run, build_run, evaluate_run, numbers
from pointmix.utils import atomic


class Stopped(KeyboardInterrupt):
    """Training was asked to stop by a signal and has saved its state."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def train(cfg: RunConfig, *, recipe: str | None = None) -> dict[str, Any]:
    """Train, choose an epoch as `cfg.select` says, test it, and write the run folder.

    Goes on from the run folder's checkpoint if there is one, bit for bit on the CPU. Several processes (torchrun) need
    a run folder that all can read. `recipe` is what to say at the start of where the configuration is from.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: wrong data or model, or a checkpoint of another configuration; one line.
        FloatingPointError: the loss is not finite; one line with the step and the last good checkpoint.
        OSError: a file cannot be read or written.
        Stopped: SIGINT or SIGTERM; the state has been saved.
    """
    out = Path(run_folder(cfg))
    with deterministic(cfg.deterministic):  # before CUDA starts
        accelerator = build_accelerator(cfg)
        with _locked(out, accelerator) as held:
            return _train(cfg, out, accelerator, held, recipe)


def _train(
    cfg: RunConfig, out: Path, accelerator: Accelerator, held: RunLock | None, recipe: str | None
) -> dict[str, Any]:
    with warnings.catch_warnings():
        if not accelerator.is_main_process:
            warnings.simplefilter("ignore")  # one process tells what is damaged
        found = previous_state(cfg, out, processes=accelerator.num_processes)
        metrics = None if found is None else finished_metrics(cfg, out, found[0])
    accelerator.wait_for_everyone()  # nobody writes before all have read
    if metrics is not None:
        if missing_pictures(metrics, out):
            run = build_run(cfg, out, accelerator)
            run.lock = held
            restore_run(run, *found)
            load_best(run)
            if accelerator.is_main_process:
                draw_pictures(run, metrics)
        if accelerator.is_main_process:
            console = Console(highlight=False)
            console.print(f"{out} is finished; --restart true trains anew", markup=False, soft_wrap=True)
            show_result(metrics, out, console=console)
        return metrics
    run = build_run(cfg, out, accelerator)
    run.lock = held
    if found is not None:
        restore_run(run, *found)
    if accelerator.is_main_process:
        for name in ("metrics.json", *PICTURES):
            (out / name).unlink(missing_ok=True)  # that of a shorter or an earlier run
        if cfg.restart:  # else this run, once resumed, could go on from the earlier one's
            states.discard(out / states.FOLDER)
            (out / checkpoint.FINAL).unlink(missing_ok=True)
        for folder in (out, out / states.FOLDER):
            states.sweep(folder)
        text = yaml.safe_dump(as_plain(cfg) | {"restart": False}, sort_keys=False)  # used again, it must not delete
        atomic.write_text(out / "config.yaml", text)
    log = Log(
        out,
        epochs=run.epochs,
        updates_per_epoch=run.updates_per_epoch,
        total_steps=run.last_step,
        step=run.at.step,
        unit=cfg.unit,
        shares=run.task.shares,
        on=accelerator.is_main_process,
    )
    log.note(start_lines(run, recipe))
    parts = None if found is None else found[0]["processes"]
    if parts is not None:
        log.note(f"going on from step {run.at.step} of {max(run.at.step, run.last_step)} in {out}")
        then = *(found[0]["config"][key] for key in ("batch_size", "accum")), len(parts)
        if then != (now := (cfg.batch_size, cfg.accum, accelerator.num_processes)):
            shapes = " and is now ".join("{} x {} x {}".format(*shape) for shape in (then, now))
            log.note(
                f"batch_size x accum x processes was {shapes}: the samples of each step stay the same; dropout, mixing "
                "and BatchNorm's statistics differ"
            )
    del found  # the weights in it
    try:
        with _caught_signals() as caught:
            _fit(run, log, parts, caught)
    finally:
        log.close()
    return finish(run)


@contextmanager
def _locked(out: Path, accelerator: Accelerator) -> Iterator[RunLock | None]:
    """The lock on the run folder, held by the main process; where it is refused, all processes end."""
    with ExitStack() as stack:
        held, refused = None, None
        try:
            if accelerator.is_main_process:
                held = stack.enter_context(lock(out))
        except OSError as e:
            refused = str(e)
        if any(refusals := gather_object([refused])):
            raise OSError(next(filter(None, refusals)))
        yield held


def build_accelerator(cfg: RunConfig) -> Accelerator:
    """Devices, processes, threads and precision of a run.

    Raises:
        ValueError: the precision is not for this device.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    AcceleratorState._reset_state()  # lets one process train twice, with another precision
    on_cpu = not torch.accelerator.is_available()  # accelerate joins CPU processes (gloo) only when told
    accelerator = Accelerator(mixed_precision=cfg.precision, cpu=on_cpu)
    if cfg.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU; expected no or bf16 on the CPU")
    return accelerator


def _fit(run: Run, log: Log, parts: list[dict[str, Any]] | None, caught: list[int]) -> None:
    """Steps and validations to the end; `parts` is what each process saved, of a run that goes on."""
    at, cfg, accelerator = run.at, run.cfg, run.accelerator
    last_save = time.monotonic()
    started = time.perf_counter() - at.seconds
    while at.step < run.last_step or not at.history or at.history[-1]["step"] < at.step:  # steps or validation to do
        run.splits.set_epoch(at.epoch)
        batches: Iterator[Any] = iter(())
        if at.update < run.updates_per_epoch:  # else the epoch was stopped after its last step
            if parts is not None and parts[0]["loader"] is not None:  # the same in all processes
                run.splits.train.load_state_dict(parts[0]["loader"])
            batches = iter(run.splits.train)
        if parts is not None:
            _set_random_states(run, parts)
            parts = None
        run.wrapped.train()
        recent: list[torch.Tensor] = []  # losses that still lie on the device
        while at.step < run.last_step and at.update < run.updates_per_epoch:
            asked = time.perf_counter()
            group = list(islice(batches, cfg.accum))
            waited = time.perf_counter() - asked
            if not group:
                raise ValueError(f"the loader ended after {at.update} of {run.updates_per_epoch} steps of the epoch")
            recent.append(train_step(run, group))
            at.seconds, at.waited = time.perf_counter() - started, at.waited + waited
            log.step(at.step, sum(len(targets) for _, targets in group) * accelerator.num_processes, waited=waited)
            point = at.step % cfg.log_every == 0
            if point or accelerator.device.type == "cpu":
                _take_losses(run, recent)
            if point:
                mean = sum(at.losses[-cfg.log_every :]) / len(at.losses[-cfg.log_every :])
                at.curve.append([at.step, mean, run.lr])
                log.point(at.step, mean, run.lr)
            stop, late = False, False
            if accelerator.num_processes == 1 or point:  # processes must agree, which costs a message
                late = cfg.save_every_seconds is not None and time.monotonic() - last_save >= cfg.save_every_seconds
                stop, late = _any_process(accelerator, bool(caught), late)
            if stop or late or (cfg.save_every_steps and at.step % cfg.save_every_steps == 0):
                _take_losses(run, recent)
                save_run(run, mid_epoch=True)
                last_save = time.monotonic()
            if stop:
                raise _stopped(run, caught)
        _take_losses(run, recent)
        _validate(run, log)
        at.seconds = time.perf_counter() - started
        if at.update == run.updates_per_epoch:
            at.epoch, at.update, at.losses = at.epoch + 1, 0, []
            if run.scheduler is not None:
                run.scheduler.step(at.epoch)
            save_run(run, mid_epoch=False)
        else:
            save_run(run, mid_epoch=True)
        last_save = time.monotonic()
        if _any_process(accelerator, bool(caught))[0]:  # it came during validation
            raise _stopped(run, caught)


def _set_random_states(run: Run, parts: list[dict[str, Any]]) -> None:
    accelerator = run.accelerator
    if len(parts) == accelerator.num_processes:
        states.set_rng_state(parts[accelerator.process_index]["rng"])
        return
    words = (run.cfg.seed, run.at.step, accelerator.process_index)  # no process has what another one drew
    seed_all(*words)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(torch.initial_seed())


def _stopped(run: Run, caught: list[int]) -> Stopped:
    name = signal.Signals(caught[0]).name if caught else "a signal to another process"
    without = ", without --restart," if run.cfg.restart else ""
    last = run.out / states.FOLDER
    note = f"stopped by {name} at step {run.at.step}; the same command{without} goes on from {last}"
    return Stopped(caught[0] if caught else signal.SIGTERM, note)


def train_step(run: Run, group: list[tuple[Any, torch.Tensor]]) -> torch.Tensor:
    """One optimizer step over a group of batches; returns this process's mean loss, on the device."""
    accelerator, total = run.accelerator, None
    for i, (inputs, targets) in enumerate(group):
        inputs = inputs.to(accelerator.device, non_blocking=True)
        targets = targets.to(accelerator.device, non_blocking=True)
        last = i == len(group) - 1
        with nullcontext() if last else accelerator.no_sync(run.wrapped):
            loss = run.task.loss(run.wrapped, inputs, targets) / len(group)
            accelerator.backward(loss)
        total = loss.detach() if total is None else total + loss.detach()
    if run.cfg.optim.clip_grad is not None:
        accelerator.clip_grad_norm_(run.wrapped.parameters(), run.cfg.optim.clip_grad)
    run.optimizer.step()
    run.optimizer.zero_grad()
    _share_averages(run)
    at = run.at
    at.step, at.update = at.step + 1, at.update + 1
    if run.ema is not None:
        run.ema.update(run.model, step=at.step)
    if run.scheduler is not None:
        run.scheduler.step_update(at.step)
    return total


def _share_averages(run: Run) -> None:
    """Give every process the mean of all processes' BatchNorm averages: all hold one and the same network."""
    if run.accelerator.num_processes == 1:
        return
    own = [buffer for name, buffer in run.model.named_buffers() if "running_" in name]  # each (channels,)
    if own:
        means = run.accelerator.reduce(torch.cat(own), "mean").split([len(buffer) for buffer in own])
        torch._foreach_copy_(own, list(means))


def _take_losses(run: Run, recent: list[torch.Tensor]) -> None:
    """Fetch the losses from the device and refuse what is not finite."""
    first = run.at.step - len(recent) + 1
    values = torch.stack(recent).tolist() if recent else []
    recent.clear()
    for step, loss in enumerate(values, start=first):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; {last_good(run.out)}")
    run.at.losses += values


def _validate(run: Run, log: Log) -> None:
    """Validate, add to the history, and note the best entry so far, or the newest where nothing tells the best."""
    at, select = run.at, run.cfg.select
    loaders = {"val": run.splits.val} | ({"test": run.splits.test} if select == "test" else {})
    looks = {k: None if v is None else numbers(evaluate_run(run, run.chosen, v)) for k, v in loaders.items()}
    train_loss = torch.tensor(sum(at.losses) / len(at.losses), device=run.accelerator.device)
    entry = {
        "epoch": at.step / run.updates_per_epoch,
        "step": at.step,
        "train_loss": run.accelerator.reduce(train_loss, "mean").item(),
        **looks,
        "lr": run.lr,
        "seconds": round(at.seconds, 3),
        "waited": round(at.waited, 3),
    }
    at.history.append(entry)
    log.epoch(entry)
    key = run.task.select_by
    if at.best is None or entry.get(select) is None or entry[select][key] > at.best[select][key]:
        at.best = entry  # save_run, which comes next, writes the weights


def _any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Each flag, true if it is true in any process."""
    if accelerator.num_processes == 1:
        return list(flags)
    sums = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device), "sum")
    return [s > 0 for s in sums.tolist()]


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted for the loop to see; a second SIGINT interrupts at once."""
    caught: list[int] = []

    def note(signum: int, frame: Any) -> None:
        if caught and signum == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(signum)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield caught
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
