"""The parts of a training run, built from its configuration."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import gather_object, set_seed
from rich.console import Console
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from pointmix.engine import states
from pointmix.engine.compile import compile_network
from pointmix.engine.evaluate import evaluate
from pointmix.engine.freeze import Frozen, freeze
from pointmix.engine.init import start_from
from pointmix.engine.init_sources import local_weights
from pointmix.engine.lock import RunLock
from pointmix.engine.optimizer import build_optimizer
from pointmix.engine.versions import version
from pointmix.models import list_models
from pointmix.tasks.base import AnyTask, task_of
from pointmix.tasks.config import ENDLESS, RunConfig, as_plain
from pointmix.tasks.protocols import Info, Loader, Loss, Metric, Metrics, Splits

Item = TypeVar("Item")


@dataclass
class TrainState:
    """The progress of a run: plain values, saved with its weights."""

    epoch: int = 0  # epochs ended, validation included
    update: int = 0  # optimizer steps in the current epoch
    step: int = 0  # optimizer steps in all
    seconds: float = 0.0
    waited: float = 0.0  # of these, for training data, without the start of its workers
    losses: list[float] = field(default_factory=list)  # of the current epoch, one a step, of this process
    curve: list[list[float]] = field(default_factory=list)  # [step, mean loss since the last point, lr]
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry for each validation
    best: dict[str, Any] | None = None  # the entry of the history whose weights are kept
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (file, reason) of damaged samples, of all processes


@dataclass
class LossParts:
    """The parts of a loss, added over batches of this process, on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    batches: int = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Add those of a batch."""
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0) + part.detach()
        self.batches += 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Their means over the batches since the last call, and over processes."""
        means = {name: accelerator.reduce(part / self.batches, "mean").item() for name, part in self.sums.items()}
        self.sums, self.batches = {}, 0
        return means


@dataclass
class Run:
    """The parts of a run, so that they can be saved and restored together."""

    cfg: RunConfig
    folder: Path
    accelerator: Accelerator
    task: AnyTask
    splits: Splits[object]
    info: Info
    loss: Callable[[nn.Module, object], Loss]
    metric: Metric[object]
    model: nn.Module  # the bare network
    wrapped: nn.Module  # the same, as accelerate prepared it
    ema: ModelEmaV3 | None
    optimizer: AcceleratedOptimizer
    scheduler: Scheduler | None
    epochs: int  # with cool-down
    total_steps: int
    updates_per_epoch: int
    state: TrainState
    frozen: Frozen | None = None  # what is not trained
    parts: LossParts = field(default_factory=LossParts)  # since the last validation, or the start of this process
    saved: states.Saved | None = None  # the newest state in the folder
    best_file: str | None = None  # the weights of state.best
    lock: RunLock | None = None  # held by the main process

    @property
    def last_step(self) -> int:
        return min(self.total_steps, self.cfg.max_steps or self.total_steps)

    @property
    def eval_model(self) -> nn.Module:
        """The network that is validated and tested: the moving average, or the trained one if there is no average."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)


class AllProcesses:
    """Sums and lists over the processes of an accelerator, see `pointmix.tasks.protocols.Processes`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def sum(self, x: Tensor) -> Tensor:
        device = self.accelerator.device
        x = x.float() if device.type == "mps" and x.dtype == torch.float64 else x  # mps has no float64
        return self.accelerator.reduce(x.to(device), "sum")

    def gather(self, items: list[Item]) -> list[Item]:
        return gather_object(items)


def build_run(cfg: RunConfig, folder: Path, accelerator: Accelerator, *, fresh: bool = True) -> Run:
    """All parts of a run before its first step.

    Args:
        fresh: whether the network starts from `cfg.model.init`; not if a state will be restored.

    Raises:
        FileNotFoundError, ValueError: data or model do not fit the configuration; one line.
    """
    set_seed(cfg.seed)  # every process builds the same weights
    task = task_of(cfg)
    splits = task.build_splits(cfg, rank=accelerator.process_index, world_size=accelerator.num_processes)
    info = run_info(task, cfg, splits)
    model = create_run_model(task, cfg, info)
    if fresh and cfg.model.init is not None:
        taken = start_from(model, local_weights(cfg.model.init), name=cfg.model.name)
        if accelerator.is_main_process:
            Console(highlight=False).print(taken.table())
    model = model.to(accelerator.device)
    task.check_model(model, cfg, info)
    frozen = freeze(model, cfg.model.frozen_parts) if cfg.model.frozen_parts else None
    optim = cfg.optim
    lr = optim.scaled_lr(cfg.batch_size * cfg.grad_accum_steps * accelerator.num_processes)
    optimizer: Any = build_optimizer(model, optim, lr=lr)
    updates_per_epoch = math.ceil(len(splits.train) / cfg.grad_accum_steps)
    cooldown = 0 if optim.sched in ENDLESS else optim.cooldown_epochs
    in_schedule = cfg.epochs if cfg.steps is None else cfg.steps / updates_per_epoch - cooldown
    warmup = optim.warmup(max(in_schedule, 0), updates_per_epoch)
    key = "warmup_epochs" if optim.warmup_steps is None else "warmup_steps"
    if cfg.steps is not None and in_schedule <= warmup:
        raise ValueError(
            f"steps {cfg.steps} are {cfg.steps / updates_per_epoch:.3g} epochs; expected more than the "
            f"{warmup + cooldown:.3g} of optim.{key} and optim.cooldown_epochs"
        )
    remarks = optim.unused()
    if in_schedule <= warmup:
        why = f"epochs is {cfg.epochs} and optim.{key} {getattr(optim, key) or warmup:g}"
        remarks.append(f"all of the run is warm-up: {why}, expected a smaller one, or null")
    for line in remarks if accelerator.is_main_process else ():
        warnings.warn(line, stacklevel=2)
    on_epochs = cfg.steps is None and not optim.sched_on_updates
    half = 0.5 if on_epochs else 0.5 / updates_per_epoch  # of a tick: timm's decay comes one tick before its milestone
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched=optim.sched,
        num_epochs=in_schedule,  # type: ignore[arg-type]  # parts of epochs are fine
        warmup_epochs=warmup,  # type: ignore[arg-type]
        warmup_lr=optim.warmup_lr,
        min_lr=optim.min_lr,
        cooldown_epochs=cooldown,
        decay_milestones=[epoch + half for epoch in optim.milestones],  # type: ignore[misc]
        decay_rate=optim.power if optim.sched == "poly" else optim.decay_rate,  # timm's name for the exponent, too
        step_on_epochs=on_epochs,
        updates_per_epoch=updates_per_epoch,
    )
    total_steps = cfg.steps or int(epochs) * updates_per_epoch
    ema = None
    if optim.ema_decay is not None:
        ema = ModelEmaV3(model, decay=optim.ema_decay, use_warmup=optim.ema_warmup)
    if cfg.compile:
        compile_network(model)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    set_seed(cfg.seed, device_specific=True)  # processes mix and drop differently
    return Run(
        cfg=cfg, folder=folder, accelerator=accelerator, task=task, splits=splits, info=info,
        loss=task.build_loss(cfg, info), metric=task.build_metric(info), model=model, wrapped=wrapped, ema=ema,
        optimizer=optimizer, scheduler=scheduler, epochs=math.ceil(total_steps / updates_per_epoch),
        total_steps=total_steps, updates_per_epoch=updates_per_epoch, state=TrainState(),
        frozen=frozen,
    )  # fmt: skip


def run_info(task: AnyTask, cfg: RunConfig, splits: Splits[object]) -> Info:
    """The metadata of the weights, with which they can be used without the run's data."""
    network = {"task": task.name, "name": cfg.model.name, "kwargs": as_plain(cfg.model)["kwargs"]}
    return network | task.info(cfg, splits) | {"pointmix": version()}


def create_run_model(task: AnyTask, cfg: RunConfig, info: Info) -> nn.Module:
    """The network of a configuration.

    Raises:
        ValueError: there is no such network, or it does not take these arguments; one line.
    """
    name, kwargs = cfg.model.name, cfg.model.kwargs
    try:
        return task.build_model(info)
    except ValueError as e:
        raise ValueError(str(e) if name in str(e) else f"model {name}: {e}") from e
    except (RuntimeError, TypeError, AssertionError) as e:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(e))
        twice = re.search(r"multiple values for keyword argument '(\w+)'", str(e))
        if twice:
            raise ValueError(f"model.kwargs.{twice[1]} is set by the data; leave it out") from e
        if unknown and unknown[1] not in kwargs:
            ours = ", ".join(list_models())
            raise ValueError(f"{name} does not take {task.unit}: {e}; expected one such as {ours}") from e
        raise ValueError(f"cannot create model {name} with kwargs {kwargs}: {e}") from e


def evaluate_run(run: Run, model: nn.Module, loader: Loader[object]) -> Metrics:
    """Metrics of a network over a loader of all processes."""
    with torch.random.fork_rng(devices=[]):  # random numbers of evaluation must not change training
        return evaluate(
            model,
            loader,
            metric=run.metric,
            device=run.accelerator.device,
            to_device=run.task.to_device,
            autocast=run.accelerator.autocast,
            processes=AllProcesses(run.accelerator),
        )


def numbers(metrics: Metrics) -> dict[str, float]:
    """The metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
