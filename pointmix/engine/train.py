"""The training loop: one process or many, exactly resumable.

Whatever decides how training continues (weights, average, optimizer, schedule, scaler, random states, place in the
data) is in one file, written between optimizer steps, see `states`. Data and evaluation do not change the random
states: augmentation has its own seeds.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from rich.console import Console

from pointmix.engine import checkpoint, epochs, states
from pointmix.engine.determinism import deterministic
from pointmix.engine.finish import CURVES, draw_pictures, finish, missing_pictures
from pointmix.engine.lock import RunLock, lock
from pointmix.engine.log import Log
from pointmix.engine.loop import fit
from pointmix.engine.report import show_result, start_lines
from pointmix.engine.resume import finished_metrics, load_best, previous_state, restore_run
from pointmix.engine.run import Run, build_run
from pointmix.engine.signals import caught_signals
from pointmix.ops.precision import emulates_bfloat16
from pointmix.tasks.config import RunConfig, as_plain, run_folder
from pointmix.utils import atomic


def train(cfg: RunConfig, *, recipe: str | None = None) -> dict[str, Any]:
    """Train, select an epoch as `cfg.select` says, test it, and write the run folder.

    Resumes from the run folder's checkpoint if there is one, bit for bit on the CPU. Several processes (torchrun) need
    a run folder that all can read.

    Args:
        recipe: where the configuration is from, shown at the start.

    Returns:
        The content of metrics.json.

    Raises:
        ValueError: wrong data or model, or a checkpoint of another configuration; one line.
        FloatingPointError: the loss is not finite; one line with the step and the last good checkpoint.
        OSError: a file cannot be read or written.
        Stopped: SIGINT or SIGTERM; the state has been saved.
    """
    folder = Path(run_folder(cfg))
    with deterministic(cfg.deterministic):  # before CUDA starts
        accelerator = build_accelerator(cfg)
        with _locked(folder, accelerator) as run_lock:
            return _train(cfg, folder, accelerator, run_lock, recipe)


def _train(
    cfg: RunConfig, folder: Path, accelerator: Accelerator, run_lock: RunLock | None, recipe: str | None
) -> dict[str, Any]:
    with warnings.catch_warnings():
        if not accelerator.is_main_process:
            warnings.simplefilter("ignore")  # the main process warns of damaged files
        previous = previous_state(cfg, folder, processes=accelerator.num_processes)
        metrics = None if previous is None else finished_metrics(cfg, folder, previous[0])
    accelerator.wait_for_everyone()  # no process writes before all have read
    if previous is not None and metrics is not None:
        _show_finished(cfg, folder, accelerator, run_lock, previous, metrics)
        return metrics
    run = build_run(cfg, folder, accelerator, fresh=previous is None)
    run.lock = run_lock
    if previous is not None:
        restore_run(run, *previous)
    if accelerator.is_main_process:
        _prepare_folder(run)
    log = Log(
        folder,
        epochs=run.epochs,
        updates_per_epoch=run.updates_per_epoch,
        total_steps=run.last_step,
        step=run.state.step,
        unit=run.task.unit,
        scores=run.task.scores,
        on=accelerator.is_main_process,
    )
    log.note(start_lines(run, recipe))
    if cfg.precision == "bf16" and accelerator.device.type == "cpu" and emulates_bfloat16():
        log.note(
            "warning: this processor has no instructions for bfloat16: precision bf16 takes many times longer than "
            "float32 (--precision no)"
        )
    parts = None
    if previous is not None:
        parts = previous[0]["processes"]
        log.note(f"resuming from step {run.state.step} of {max(run.state.step, run.last_step)} in {folder}")
        if cfg.model.init is not None:
            log.note(f"model.init {cfg.model.init} is not read: the run goes on with its own weights")
        before = *(previous[0]["config"][key] for key in ("batch_size", "grad_accum_steps")), len(parts)
        if before != (now := (cfg.batch_size, cfg.grad_accum_steps, accelerator.num_processes)):
            shapes = " and is now ".join("{} x {} x {}".format(*shape) for shape in (before, now))
            log.note(
                f"batch_size x grad_accum_steps x processes was {shapes}: the samples of each step stay the same; "
                "dropout, mixing and BatchNorm's statistics differ"
            )
    del previous  # frees its weights
    try:
        with caught_signals() as caught:
            fit(run, log, parts, caught)
    finally:
        log.close()
    return finish(run)


def _show_finished(
    cfg: RunConfig,
    folder: Path,
    accelerator: Accelerator,
    run_lock: RunLock | None,
    previous: tuple[dict[str, Any], states.Saved],
    metrics: dict[str, Any],
) -> None:
    """Show the results of a run that has nothing left to do, and draw the pictures that are missing."""
    if missing_pictures(metrics, folder):
        run = build_run(cfg, folder, accelerator, fresh=False)
        run.lock = run_lock
        restore_run(run, *previous)
        load_best(run)
        if accelerator.is_main_process:
            draw_pictures(run, metrics)
    if accelerator.is_main_process:
        console = Console(highlight=False)
        console.print(f"{folder} is finished; --restart true trains anew", markup=False, soft_wrap=True)
        show_result(metrics, folder, console=console)


def _prepare_folder(run: Run) -> None:
    """Remove the results of a shorter or an earlier run, and write the configuration."""
    for name in (*_earlier_pictures(run.folder), CURVES, "metrics.json"):
        (run.folder / name).unlink(missing_ok=True)
    if run.cfg.restart:  # else this run, once resumed, could continue the earlier one
        states.discard(run.folder / states.FOLDER)
        (run.folder / checkpoint.FINAL).unlink(missing_ok=True)
    if run.state.step == 0:
        states.discard(run.folder / epochs.FOLDER)
    for folder in (run.folder, run.folder / states.FOLDER, run.folder / epochs.FOLDER):
        states.sweep(folder)
    text = yaml.safe_dump(as_plain(run.cfg) | {"restart": False}, sort_keys=False)  # used again, it must not delete
    atomic.write_text(run.folder / "config.yaml", text)


def _earlier_pictures(folder: Path) -> list[str]:
    """Names of the pictures that metrics.json says were drawn."""
    try:
        names = json.loads((folder / "metrics.json").read_text())["pictures"]
        return [name for name in names if name == Path(name).name and name.endswith(".png")]
    except (OSError, ValueError, KeyError, TypeError):  # there are no metrics, or they are damaged
        return []


@contextmanager
def _locked(folder: Path, accelerator: Accelerator) -> Iterator[RunLock | None]:
    """The lock on the run folder, held by the main process; if it is refused, all processes end."""
    with ExitStack() as stack:
        run_lock, refusal = None, None
        try:
            if accelerator.is_main_process:
                run_lock = stack.enter_context(lock(folder))
        except OSError as e:
            refusal = str(e)
        if any(refusals := gather_object([refusal])):
            raise OSError(next(filter(None, refusals)))
        yield run_lock


def build_accelerator(cfg: RunConfig) -> Accelerator:
    """Devices, processes, threads and precision of a run.

    Raises:
        ValueError: the precision is not for this device.
    """
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    AcceleratorState._reset_state()  # lets one process train twice, with another precision
    on_cpu = not torch.accelerator.is_available()  # accelerate joins CPU processes (gloo) only with cpu=True
    accelerator = Accelerator(mixed_precision=cfg.precision, cpu=on_cpu)
    if cfg.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU; expected no or bf16 on the CPU")
    return accelerator
