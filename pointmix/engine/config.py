"""What every training run is made of, whatever it trains on: dataclasses of plain values."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from pointmix.utils.ranges import COUNT, NATURAL, NONNEGATIVE, PART, POSITIVE, SEED, check_fields

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "none")  # timm's, without plateau
ENDLESS = ("step", "multistep", "none")  # whose learning rates do not depend on the length of the run


@dataclass(frozen=True)
class ModelConfig:
    """The network: one of ours or any model of timm."""

    name: str = "coc_tiny"
    """Model name; pointmix.list_models() and, for images, timm.list_models() say which there are."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments, such as {"drop_path_rate": 0.1}; classes and channels come from the data."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    opt: str = "adamw"
    """Optimizer name, as timm knows it."""
    lr: Annotated[float, POSITIVE] = 1e-3
    """Learning rate at a total batch of `lr_base_batch`; see `lr_scale` for others."""
    lr_base_batch: Annotated[int, COUNT] = 256
    """Total batch (processes x batch_size x accum) for which `lr` is meant."""
    lr_scale: Literal["sqrt", "linear", "none"] = "sqrt"
    """How the learning rate follows the total batch: sqrt suits Adam-like optimizers, linear suits SGD and is what
    most papers did; none does not."""
    weight_decay: Annotated[float, NONNEGATIVE] = 0.05
    """Weight decay; none on biases, on 1-D tensors and on what the model's no_weight_decay() names."""
    decay_all: bool = False
    """Decay biases and norms too, as torch's optimizers do when they are given all parameters."""
    betas: tuple[Annotated[float, PART], Annotated[float, PART]] | None = None
    """Moment decays of Adam-like optimizers; null leaves the optimizer's default."""
    clip_grad: Annotated[float, POSITIVE] | None = None
    """Largest norm of the whole gradient; null does not clip."""
    sched: str = "cosine"
    """Schedule: cosine, tanh, step, multistep, poly or none, as timm knows them; not plateau, whose state it does not
    save. none keeps one rate from the first step on, without warm-up."""
    warmup_epochs: Annotated[float, NONNEGATIVE] | None = None
    """Epochs of linear warm-up, counted inside `epochs`; null: 5, but at most a fifth of the run."""
    warmup_lr: Annotated[float, NONNEGATIVE] = 1e-6
    """Learning rate at the start of the warm-up."""
    min_lr: Annotated[float, NONNEGATIVE] = 1e-6
    """Learning rate at the end of the schedule."""
    cooldown_epochs: Annotated[int, NATURAL] = 0
    """Epochs at `min_lr` after the schedule, in addition to `epochs`; for cosine, tanh and poly."""
    sched_on_updates: bool = True
    """Move the learning rate at every step instead of every epoch, as some papers did."""
    ema_decay: Annotated[float, PART] | None = None
    """Decay of an exponential moving average of the weights, which is then what is selected and tested; null: none."""
    ema_warmup: bool = True
    """Let the decay of the average rise from zero over the first steps."""

    def __post_init__(self) -> None:
        from timm.optim import get_optimizer_info, list_optimizers

        check_fields(self, "optim.")
        _check_known("optim.opt", self.opt.lower(), list_optimizers())
        _check_known("optim.sched", self.sched, SCHEDULES)
        takes = get_optimizer_info(self.opt.lower())
        if self.betas is not None and not (takes.has_betas and takes.num_betas == len(self.betas)):
            raise ValueError(f"optim.betas are {self.betas}, and {self.opt} does not take two; expected null")

    def unused(self) -> list[str]:
        """Settings that the schedule passes over, a line for each."""
        lines = []
        if self.sched in ENDLESS and self.cooldown_epochs:
            lines.append(f"optim.cooldown_epochs {self.cooldown_epochs} is not used: {self.sched} has no cool-down")
        if self.sched == "none" and self.warmup_epochs:
            lines.append(f"optim.warmup_epochs {self.warmup_epochs:g} is not used: optim.sched none has no warm-up")
        return lines

    def warmup(self, epochs: float) -> float:
        """Epochs of warm-up in a schedule of so many epochs."""
        if self.sched == "none":
            return 0.0
        return min(5.0, epochs / 5) if self.warmup_epochs is None else self.warmup_epochs

    def scaled_lr(self, total_batch: int) -> float:
        """The learning rate at so many samples a step, those of all processes and of `accum` batches."""
        ratio = total_batch / self.lr_base_batch
        return self.lr * {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.lr_scale]


@dataclass(frozen=True)
class RunConfig:
    """A run. What is trained on, and all that follows from it, is said by a subclass for each kind of data.

    `data` and `mix` are dataclasses of their own there. The methods are what the engine asks of a kind of data.
    """

    unit: ClassVar[str] = "samples"
    """What the data are called where they are counted."""
    root_source: ClassVar[str | None] = None
    """What `data.source` is where flags and files give `data.root` and no source; None: a source must be given too."""
    drawn_by: ClassVar[tuple[str, ...]] = ("explain",)
    """Methods of a network of which `draw_clusters` needs one."""

    data: Any = None
    """The data."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    mix: Any = None
    """What is done to a batch and its labels."""
    name: str | None = None
    """Name of the run; null makes one of the model's and the data's names."""
    out: str | None = None
    """Run folder; null means runs/<name>. The same command again goes on from what it finds there."""
    restart: bool = False
    """Start anew although the run folder holds a checkpoint, which is then overwritten."""
    epochs: Annotated[int, COUNT] = 300
    """Epochs of the schedule, without its cool-down."""
    steps: Annotated[int, COUNT] | None = None
    """Optimizer steps of the whole run, cool-down included, in place of `epochs`: the last epoch may be a part of one,
    and the learning rate moves at every step. null: as many as `epochs` has."""
    max_steps: Annotated[int, COUNT] | None = None
    """End after so many optimizer steps in all; a larger number later goes on from there. null: to the last epoch."""
    select: Literal["val", "last", "test"] = "val"
    """Whose weights are kept and tested: val, the epoch best on what was held back from training (the last one where
    nothing was); last, the last epoch; test, the epoch best on the test data: they are then used for selection, so the
    result is too high, and is told beside that of the last epoch. Some papers report it so."""
    batch_size: Annotated[int, COUNT] = 128
    """Samples a step and process."""
    accum: Annotated[int, COUNT] = 1
    """Batches whose gradients are averaged into one optimizer step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no (float32), bf16, or fp16 (GPU only)."""
    compile: bool = False
    """Compile the network with torch.compile."""
    deterministic: bool = False
    """On a GPU, take only algorithms whose results are the same each time, some of which are slower; what has none is
    refused. On a CPU results are the same anyway."""
    threads: Annotated[int, COUNT] | None = None
    """CPU threads a process computes with; null leaves torch's choice. Small networks are fastest with 1."""
    seed: Annotated[int, SEED] = 42
    """Seed of weights, order, augmentation and mixing."""
    seeds: tuple[Annotated[int, SEED], ...] | None = None
    """Train once with each of these seeds, in <out>/seed<n>, and report mean and deviation; null: once, with `seed`."""
    save_every_steps: Annotated[int, COUNT] | None = None
    """Save a checkpoint every so many steps, beside the one at each epoch's end."""
    save_every_seconds: Annotated[float, NONNEGATIVE] | None = 300.0
    """Save a checkpoint when so many seconds have gone since the last one."""
    log_every: Annotated[int, COUNT] = 20
    """Optimizer steps between points of the loss curve."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError(f"seeds must be one or more different numbers, got {list(self.seeds)}")

    @property
    def data_name(self) -> str:
        """What to call the data: the folder's name, or that of the source."""
        root, source = self.data.root, self.data.source
        return Path(root).resolve().name if root and source in ("folder", "wds/") else source

    def build_splits(self, *, rank: int, world_size: int) -> Any:
        """Loaders of (input, targets) batches as `train`, `val` (or None) and `test`, with `classes`, `config`,
        `steps_per_epoch`, `set_epoch` and `skipped`."""
        raise NotImplementedError

    def build_task(self, splits: Any) -> Any:
        """What a step computes, see pointmix.tasks."""
        raise NotImplementedError

    def data_kwargs(self, splits: Any) -> dict[str, Any]:
        """Constructor arguments of the network that follow from the data; num_classes and in_chans are among them."""
        raise NotImplementedError

    def info(self, splits: Any) -> dict[str, Any]:
        """What stands beside weights about their input, beyond the constructor arguments."""
        raise NotImplementedError

    def check_input(self, model: nn.Module, splits: Any) -> None:
        """Try the network on a blank input; ValueError if it cannot take it."""
        raise NotImplementedError

    def draw_clusters(self, model: nn.Module, splits: Any, path: Path) -> None:
        """Draw what the network, in evaluation mode, clusters in a few test samples."""
        raise NotImplementedError

    def more_tests(self, model: nn.Module) -> dict[str, nn.Module]:
        """Other ways to use the trained network on the test data: a name for each and the network that does it."""
        return {}


# Keys that may differ when a run goes on, because they do not change what is trained. All others must be as they were.
FREE_KEYS = frozenset(
    "name out restart seeds max_steps save_every_steps save_every_seconds log_every data.workers votes".split()
)


def run_folder(cfg: RunConfig) -> str:
    """The run folder: `out`, or runs/<name>, or runs/<model>-<data>."""
    return cfg.out or f"runs/{cfg.name or f'{cfg.model.name}-{cfg.data_name}'.replace('/', '_')}"


def as_plain(cfg: Any) -> dict[str, Any]:
    """A configuration dataclass as nested dicts, lists, strings and numbers, as YAML and checkpoints hold them."""
    return _plain(dataclasses.asdict(cfg))


def changed_key(old: dict[str, Any], cfg: RunConfig) -> str | None:
    """Say which key of an earlier configuration (`as_plain`) differs first now; None if none does.

    FREE_KEYS may differ, and what `growing` names may be larger now.

    A key that the earlier one does not have, because an earlier version wrote it, had its default.
    """
    old = _flat(as_plain(type(cfg)())) | _flat(old)
    new = _flat(as_plain(cfg))
    for key in [*new, *(k for k in old if k not in new)]:
        before, now = old.get(key), new.get(key)
        if key in FREE_KEYS or before == now or (key in growing(cfg) and _is_less(before, now)):
            continue
        return f"{key} was {before!r} and is now {now!r}" + (_why_fixed(cfg) if key in ("epochs", "steps") else "")
    return None


def _why_fixed(cfg: RunConfig) -> str:
    """Why the length of a run cannot be what it is now, and what can change."""
    may = growing(cfg)
    if "epochs" in may:
        return " (it can only grow)"
    what = "default warm-up" if cfg.optim.sched in ENDLESS else f"{cfg.optim.sched} schedule"
    return f" (the {what} depends on it" + ("; a larger optim.cooldown_epochs makes the run longer)" if may else ")")


def growing(cfg: RunConfig) -> tuple[str, ...]:
    """Keys that make a run longer and leave the learning rates before as they were."""
    if cfg.optim.sched in ENDLESS:  # but the default warm-up depends on the length
        return () if cfg.optim.sched != "none" and cfg.optim.warmup_epochs is None else ("epochs", "steps")
    return ("optim.cooldown_epochs",) if cfg.steps is None else ()


def is_longer(old: dict[str, Any], cfg: RunConfig) -> bool:
    """Whether a configuration makes a run longer than an earlier one (`as_plain`) did."""
    old, new = _flat(old), _flat(as_plain(cfg))
    return any(_is_less(old.get(key), new[key]) for key in growing(cfg))


def _is_less(before: Any, now: Any) -> bool:
    return isinstance(before, int | float) and isinstance(now, int | float) and before < now


def _check_known(key: str, value: str, known: Sequence[str]) -> None:
    """Refuse a name that is not known, and say what is called like it."""
    if value not in known:
        like = difflib.get_close_matches(value, known, n=3)
        some = ", ".join(known) if len(known) < 12 else f"{len(known)} names, such as adamw, sgd and nmuon"
        expected = f"did you mean {' or '.join(like)}?" if like else f"expected one of {some}"
        raise ValueError(f"{key} {value!r} is not known; {expected}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Keys as the command line has them, such as optim.lr; model.kwargs is one of them."""
    sections = {k: v for k, v in config.items() if isinstance(v, dict)}
    flat = {f"{name}.{k}": v for name, section in sections.items() for k, v in section.items()}
    return flat | {k: v for k, v in config.items() if k not in sections}
