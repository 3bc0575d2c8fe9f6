"""The parts of a training run, built from its configuration."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

import pointmix
from pointmix.engine import states
from pointmix.engine.config import ENDLESS, RunConfig, as_plain
from pointmix.engine.evaluate import evaluate
from pointmix.engine.lock import RunLock


@dataclass
class Progress:
    """Where a run stands: plain numbers, saved with the state."""

    epoch: int = 0  # epochs ended, validation included
    update: int = 0  # optimizer steps in the present epoch
    step: int = 0  # optimizer steps in all
    seconds: float = 0.0
    waited: float = 0.0  # of these, for training data, without the start of its workers
    losses: list[float] = field(default_factory=list)  # of the present epoch, one a step, of this process
    curve: list[list[float]] = field(default_factory=list)  # [step, mean loss since the last point, lr]
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry for each validation
    best: dict[str, Any] | None = None  # the entry of the history whose weights are kept
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (file, reason) of damaged samples, of all processes


@dataclass
class Run:
    """The parts of a run, so that they can be saved and restored together."""

    cfg: RunConfig
    out: Path
    accelerator: Accelerator
    splits: Any  # see RunConfig.build_splits
    task: Any  # see pointmix.tasks
    model: nn.Module  # the bare network
    wrapped: nn.Module  # the same, as accelerate prepared it
    ema: ModelEmaV3 | None
    optimizer: Any
    scheduler: Any
    epochs: int  # with cool-down
    total_steps: int
    updates_per_epoch: int
    at: Progress
    saved: states.Saved | None = None  # the newest state in the folder
    best_file: str | None = None  # the weights of at.best
    lock: RunLock | None = None  # of the main process

    @property
    def last_step(self) -> int:
        return min(self.total_steps, self.cfg.max_steps or self.total_steps)

    @property
    def chosen(self) -> nn.Module:
        """The network that is validated and tested."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)


def build_run(cfg: RunConfig, out: Path, accelerator: Accelerator) -> Run:
    """Everything of a run at its beginning.

    Raises:
        FileNotFoundError, ValueError: data or model are not as the configuration says; one line.
    """
    set_seed(cfg.seed)  # every process builds the same weights
    splits = cfg.build_splits(rank=accelerator.process_index, world_size=accelerator.num_processes)
    task = cfg.build_task(splits)
    model = create_run_model(cfg, splits).to(accelerator.device)
    cfg.check_input(model, splits)
    optim = cfg.optim
    options = {} if optim.betas is None else {"betas": tuple(optim.betas)}
    optimizer = create_optimizer_v2(
        model,
        opt=optim.opt,
        lr=optim.scaled_lr(cfg.batch_size * cfg.accum * accelerator.num_processes),
        weight_decay=optim.weight_decay,
        filter_bias_and_bn=not optim.decay_all,
        fallback_no_weight_decay=True,  # tables without decay are no matrices for Muon either
        **options,
    )
    updates_per_epoch = math.ceil(splits.steps_per_epoch / cfg.accum)
    cooldown = 0 if optim.sched in ENDLESS else optim.cooldown_epochs
    in_schedule = cfg.epochs if cfg.steps is None else cfg.steps / updates_per_epoch - cooldown
    warmup = optim.warmup(max(in_schedule, 0))
    if cfg.steps is not None and in_schedule <= warmup:
        raise ValueError(
            f"steps {cfg.steps} are {cfg.steps / updates_per_epoch:.3g} epochs; expected more than the "
            f"{warmup + cooldown:g} of optim.warmup_epochs and optim.cooldown_epochs"
        )
    told = optim.unused()
    if in_schedule <= warmup:
        why = f"epochs is {cfg.epochs} and optim.warmup_epochs {warmup:g}"
        told.append(f"all of the run is warm-up: {why}, expected a smaller one, or null")
    for line in told if accelerator.is_main_process else ():
        warnings.warn(line, stacklevel=2)
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched=optim.sched,
        num_epochs=in_schedule,
        warmup_epochs=warmup,
        warmup_lr=optim.warmup_lr,
        min_lr=optim.min_lr,
        cooldown_epochs=cooldown,
        step_on_epochs=cfg.steps is None and not optim.sched_on_updates,
        updates_per_epoch=updates_per_epoch,
    )
    total_steps = cfg.steps or int(epochs) * updates_per_epoch
    ema = None
    if optim.ema_decay is not None:
        ema = ModelEmaV3(model, decay=optim.ema_decay, use_warmup=optim.ema_warmup)
    if cfg.compile:
        model.compile(dynamic=False)  # a new image size is a new graph
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    set_seed(cfg.seed, device_specific=True)  # processes mix and drop differently
    return Run(
        cfg=cfg, out=out, accelerator=accelerator, splits=splits, task=task, model=model, wrapped=wrapped,
        ema=ema, optimizer=optimizer, scheduler=scheduler, epochs=math.ceil(total_steps / updates_per_epoch),
        total_steps=total_steps, updates_per_epoch=updates_per_epoch, at=Progress(),
    )  # fmt: skip


def create_run_model(cfg: RunConfig, splits: Any) -> nn.Module:
    """The model of a configuration, for the classes, channels and coordinates of the data.

    Raises:
        ValueError: there is no such model, or it does not take these arguments; one line.
    """
    given, name = cfg.data_kwargs(splits), cfg.model.name
    for key in given.keys() & cfg.model.kwargs.keys():
        raise ValueError(f"model.kwargs.{key} is set by the data ({given[key]}); leave it out")
    try:
        return pointmix.create_model(name, **given, **as_plain(cfg.model)["kwargs"])
    except ValueError as e:
        raise ValueError(str(e) if name in str(e) else f"model {name}: {e}") from e
    except (RuntimeError, TypeError, AssertionError) as e:
        if isinstance(e, TypeError) and any(f"'{key}'" in str(e) for key in given):
            ours = ", ".join(pointmix.list_models())
            raise ValueError(f"{name} does not take {cfg.unit}: {e}; expected one such as {ours}") from e
        raise ValueError(f"cannot create model {name} with kwargs {cfg.model.kwargs}: {e}") from e


def evaluate_run(run: Run, model: nn.Module, loader: Any) -> dict[str, Any]:
    """Metrics of `model` over a loader, added up over all processes."""
    with torch.random.fork_rng(devices=[]):  # what evaluation draws must not move training
        return evaluate(
            model,
            loader,
            task=run.task,
            device=run.accelerator.device,
            autocast=run.accelerator.autocast,
            reduce=lambda sums: run.accelerator.reduce(sums, "sum"),
        )


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def model_info(run: Run) -> dict[str, Any]:
    """What stands beside weights, so that they can be used without the run's data."""
    cfg, splits = run.cfg, run.splits
    kwargs = cfg.data_kwargs(splits) | as_plain(cfg.model)["kwargs"]
    in_chans = kwargs.pop("in_chans")
    del kwargs["num_classes"]  # the classes say it
    info = {"name": cfg.model.name, "kwargs": kwargs, "classes": list(splits.classes), "in_chans": in_chans}
    info |= {"data": as_plain(splits.config), "pointmix": getattr(pointmix, "__version__", "unknown")}
    return info | cfg.info(splits)
