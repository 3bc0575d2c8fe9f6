"""The parts of a training run: built from the configuration, saved together, restored together."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

import pointmix
from pointmix.engine import checkpoint
from pointmix.engine.config import RunConfig, as_plain, changed_key
from pointmix.engine.evaluate import evaluate


@dataclass
class Progress:
    """Where a run stands: plain numbers, saved with the state."""

    epoch: int = 0  # epochs ended, validation included
    update: int = 0  # optimizer steps in the present epoch
    step: int = 0  # optimizer steps in all
    seconds: float = 0.0
    waited: float = 0.0  # of these, for training data, without the start of its workers
    losses: list[float] = field(default_factory=list)  # of the present epoch, one a step
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
    in_schedule = cfg.epochs if cfg.steps is None else cfg.steps / updates_per_epoch - optim.cooldown_epochs
    if cfg.steps is not None and in_schedule <= optim.warmup_epochs:
        raise ValueError(
            f"steps {cfg.steps} are {cfg.steps / updates_per_epoch:.3g} epochs; expected more than the "
            f"{optim.warmup_epochs + optim.cooldown_epochs:g} of warm-up and cool-down"
        )
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched=optim.sched,
        num_epochs=in_schedule,
        warmup_epochs=optim.warmup_epochs,
        warmup_lr=optim.warmup_lr,
        min_lr=optim.min_lr,
        cooldown_epochs=optim.cooldown_epochs,
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


def all_skipped(run: Run) -> list[tuple[str, str]]:
    """(file, reason) of every damaged sample that any process has met since the run began, whatever resumed it."""
    return sorted({*map(tuple, run.at.skipped), *gather_object(run.splits.skipped())})


def save_run(run: Run, *, mid_epoch: bool) -> None:
    """Write the state of all processes; between epochs the place in the data is the next epoch's start."""
    accelerator = run.accelerator
    loader = run.splits.train.state_dict() if mid_epoch else None
    parts = gather_object([{"rng": checkpoint.rng_state(), "loader": checkpoint.plain(loader)}])
    run.at.skipped = all_skipped(run)
    finite = all(bool(torch.isfinite(p).all()) for p in run.model.parameters())
    if not finite:
        raise FloatingPointError(f"the weights are not finite at step {run.at.step}; {last_good(run.out)}")
    if not accelerator.is_main_process:
        return
    state = {
        "config": as_plain(run.cfg),
        "total_steps": run.total_steps,
        "progress": asdict(run.at),
        "model": run.model.state_dict(),
        "ema": None if run.ema is None else run.ema.module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": None if run.scheduler is None else run.scheduler.state_dict(),
        "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
        "processes": parts,
    }
    checkpoint.save_state(run.out / checkpoint.LAST, state)


def previous_state(cfg: RunConfig, out: Path, *, processes: int, mmap: bool = False) -> dict[str, Any] | None:
    """The state that a run goes on from, if there is one; with `mmap` see `checkpoint.load_state`.

    Raises:
        ValueError: it is of another configuration or number of processes, or damaged; one line.
    """
    path = out / checkpoint.LAST
    if cfg.restart or not path.exists():
        return None
    state = checkpoint.load_state(path, mmap=mmap)
    hint = "give another --out, or --restart true to start anew"
    if (changed := changed_key(state["config"], cfg)) is not None:
        raise ValueError(f"{path} is of another configuration: {changed}; {hint}")
    if len(state["processes"]) != processes:
        raise ValueError(f"{path} is of {len(state['processes'])} processes, there are {processes}; {hint}")
    return state


def finished_metrics(cfg: RunConfig, out: Path, saved: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a run that has nothing left to do, or None."""
    path = out / "metrics.json"
    if not path.exists() or not (out / checkpoint.FINAL).exists():
        return None
    metrics = json.loads(path.read_text())
    wanted = min(saved["total_steps"], cfg.max_steps or saved["total_steps"])
    done = metrics.get("steps") == saved["progress"]["step"] >= wanted
    asked = cfg.more_tests(nn.Identity())
    return metrics if done and metrics.get("more_tests", {}).keys() == asked.keys() else None


def restore_run(run: Run, saved: dict[str, Any]) -> None:
    path = run.out / checkpoint.LAST
    checkpoint.load_weights(run.model, saved["model"], source=path)
    if saved["total_steps"] != run.total_steps:
        raise ValueError(f"{path} is of other data: {saved['total_steps']} steps in all, now {run.total_steps}")
    if run.ema is not None:
        checkpoint.load_weights(run.ema.module, saved["ema"], source=path)
    run.optimizer.load_state_dict(saved["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(saved["scheduler"])
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(saved["scaler"])
    run.at = Progress(**saved["progress"])


def last_good(out: Path) -> str:
    path = out / checkpoint.LAST
    if not path.exists():
        return "no checkpoint was saved before"
    return f"the last good checkpoint is {path}, of step {checkpoint.load_state(path)['progress']['step']}"
