"""The time of a training step, so that runs of different networks can be given equal time."""

from __future__ import annotations

import time
from itertools import count, islice
from pathlib import Path

from pointmix.engine.determinism import deterministic
from pointmix.engine.loop import train_step
from pointmix.engine.run import build_run
from pointmix.engine.train import build_accelerator
from pointmix.tasks.config import RunConfig, run_folder

WARM = 3  # first steps that are not timed


def seconds_per_step(cfg: RunConfig, *, seconds: float = 10.0) -> float:
    """Mean wall time of an optimizer step in seconds, with the reading of its data. Nothing is written.

    Args:
        cfg: the run; its length does not matter.
        seconds: how long to measure; at least one step is measured.

    Raises:
        As `pointmix.engine.train.train` before its first step.
    """
    with deterministic(cfg.deterministic):
        run = build_run(cfg, Path(run_folder(cfg)), build_accelerator(cfg))
        run.wrapped.train()
        steps, started = 0, 0.0
        for epoch in count():
            run.splits.train.set_epoch(epoch)
            batches = iter(run.splits.train)
            while group := list(islice(batches, cfg.grad_accum_steps)):
                train_step(run, group).item()  # waits for the device
                steps, now = steps + 1, time.perf_counter()
                if steps == WARM:
                    started = now
                elif steps > WARM and now - started >= seconds:
                    return (now - started) / (steps - WARM)
    raise AssertionError("unreachable")
