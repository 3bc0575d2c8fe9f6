"""How long a training step takes, so that runs of different networks can be given equal time."""

from __future__ import annotations

import time
from itertools import count, islice
from pathlib import Path

from pointmix.engine.config import RunConfig, run_folder
from pointmix.engine.determinism import deterministic
from pointmix.engine.run import build_run
from pointmix.engine.train import build_accelerator, train_step

WARM = 3  # first steps that are not timed


def seconds_per_step(cfg: RunConfig, *, seconds: float = 10.0) -> float:
    """Mean wall time of an optimizer step, the reading of its data included, in seconds. Nothing is written.

    Args:
        cfg: the run; its length does not matter.
        seconds: how long to measure; at least one step is.

    Raises:
        What `pointmix.engine.train.train` raises before its first step.
    """
    with deterministic(cfg.deterministic):
        run = build_run(cfg, Path(run_folder(cfg)), build_accelerator(cfg))
        run.wrapped.train()
        steps, started = 0, 0.0
        for epoch in count():
            run.splits.set_epoch(epoch)
            batches = iter(run.splits.train)
            while group := list(islice(batches, cfg.accum)):
                train_step(run, group).item()  # waits for the device
                steps, now = steps + 1, time.perf_counter()
                if steps == WARM:
                    started = now
                elif steps > WARM and now - started >= seconds:
                    return (now - started) / (steps - WARM)
    raise AssertionError("unreachable")
