"""The configuration of a training run, whatever its task: dataclasses of plain values."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pointmix.utils.ranges import (
    COUNT,
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    NATURAL,
    NONNEGATIVE,
    POSITIVE,
    SEED,
    check_fields,
)

SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly", "none")  # timm's, without plateau
ENDLESS = ("step", "multistep", "none")  # learning rates that do not depend on the length of the run


@dataclass(frozen=True)
class ModelConfig:
    """The network: one of ours or any model of timm."""

    name: str = "coc_tiny"
    """Model name, see pointmix.list_models() and, for images, timm.list_models()."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments, such as {"drop_path_rate": 0.1}; classes and channels follow from the data."""
    init: str | None = None
    """Weights to start from: a run folder or model.safetensors, of any task and classes, a checkpoint of the authors or
    of timm, or, to be downloaded, timm/NAME such as timm/resnet18.a1_in1k, or hf-hub:OWNER/NAME. All tensors that fit
    are taken, a table names them. Read when a run starts, not when it resumes."""
    freeze: tuple[str, ...] | str | None = None
    """Parts that are not trained, one or a list: backbone (all but the head), stem, a number of stages from the first
    on, or names of modules or parameters, in which * stands for anything. Running statistics stay, too. null: none."""

    def __post_init__(self) -> None:
        check_fields(self, "model.")

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """`freeze` as a list."""
        return (self.freeze,) if isinstance(self.freeze, str) else tuple(self.freeze or ())


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    opt: str = "adamw"
    """Optimizer name, as timm knows it."""
    lr: Annotated[float, POSITIVE] = 1e-3
    """Learning rate at a total batch of `lr_base_batch`; see `lr_scale` for others."""
    lr_base_batch: Annotated[int, COUNT] = 256
    """Total batch (processes x batch_size x grad_accum_steps) for which `lr` is meant."""
    lr_scale: Literal["sqrt", "linear", "none"] = "sqrt"
    """How the learning rate scales with the total batch: sqrt suits Adam-like optimizers; linear suits SGD and is what
    most papers did; none keeps `lr`."""
    weight_decay: Annotated[float, NONNEGATIVE] = 0.05
    """Weight decay; none on biases, on 1-D tensors and on what the model's no_weight_decay() names."""
    decay_all: bool = False
    """Decay biases and norms too, as torch's optimizers do by default."""
    layer_decay: Annotated[float, FRACTION_ABOVE_0] | None = None
    """Factor of the learning rate from each layer to the one before it, for networks that start from trained weights:
    the head has `lr`, the last block `layer_decay` times `lr` and so on down to the stem. null: `lr` everywhere."""
    betas: tuple[Annotated[float, FRACTION_BELOW_1], Annotated[float, FRACTION_BELOW_1]] | None = None
    """Moment decays of Adam-like optimizers; null leaves the optimizer's default."""
    clip_grad: Annotated[float, POSITIVE] | None = None
    """Largest norm of the whole gradient; null does not clip."""
    sched: str = "cosine"
    """Schedule: cosine, tanh, step, multistep, poly (timm's) or none, a constant rate without warm-up. timm's plateau
    is left out because its state cannot be saved."""
    power: Annotated[float, POSITIVE] = 0.9
    """Exponent of the schedule poly; 1 is a straight line."""
    milestones: tuple[Annotated[int, COUNT], ...] = ()
    """Epochs after which the schedule multistep multiplies the learning rate by `decay_rate`, such as 8, 11."""
    decay_rate: Annotated[float, FRACTION_BELOW_1] = 0.1
    """Factor of the schedules step, every 90 epochs, and multistep."""
    warmup_epochs: Annotated[float, NONNEGATIVE] | None = None
    """Epochs of linear warm-up, counted inside `epochs`; null: 5, but at most a fifth of the run."""
    warmup_steps: Annotated[int, COUNT] | None = None
    """Optimizer steps of linear warm-up, in place of `warmup_epochs`."""
    warmup_lr: Annotated[float, NONNEGATIVE] = 1e-6
    """Learning rate at the start of the warm-up."""
    min_lr: Annotated[float, NONNEGATIVE] = 1e-6
    """Learning rate at the end of the schedule."""
    cooldown_epochs: Annotated[int, NATURAL] = 0
    """Epochs at `min_lr` after the schedule, in addition to `epochs`; for cosine, tanh and poly."""
    sched_on_updates: bool = True
    """Move the learning rate at every step instead of every epoch, as some papers did."""
    ema_decay: Annotated[float, FRACTION_BELOW_1] | None = None
    """Decay of an exponential moving average of the weights, which is then validated and tested; null: none."""
    ema_warmup: bool = True
    """Let the decay of the average rise from zero over the first steps."""

    def __post_init__(self) -> None:
        check_fields(self, "optim.")
        if self.opt != type(self).opt:  # timm, which takes seconds to import, is not asked for the default
            self._check_optimizer()
        _check_known("optim.sched", self.sched, SCHEDULES)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"optim.milestones must grow, got {list(self.milestones)}")
        if self.sched == "multistep" and not self.milestones:
            raise ValueError("optim.sched multistep needs optim.milestones, such as [8, 11]")
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("optim.warmup_steps and optim.warmup_epochs are both given; expected one of them")
        if self.warmup_steps is not None and not self.sched_on_updates:
            raise ValueError("optim.warmup_steps needs optim.sched_on_updates true")

    def _check_optimizer(self) -> None:
        from timm.optim import get_optimizer_info, list_optimizers

        _check_known("optim.opt", self.opt.lower(), [str(name) for name in list_optimizers()])
        takes = get_optimizer_info(self.opt.lower())
        if self.betas is not None and not (takes.has_betas and takes.num_betas == len(self.betas)):
            raise ValueError(f"optim.betas are {self.betas}, and {self.opt} does not take two; expected null")

    def unused(self) -> list[str]:
        """A line for each setting that the schedule ignores."""
        lines = []
        if self.sched in ENDLESS and self.cooldown_epochs:
            lines.append(f"optim.cooldown_epochs {self.cooldown_epochs} is not used: {self.sched} has no cool-down")
        for key in ("warmup_epochs", "warmup_steps"):
            if self.sched == "none" and (length := getattr(self, key)):
                lines.append(f"optim.{key} {length:g} is not used: optim.sched none has no warm-up")
        if self.sched != "poly" and self.power != type(self).power:
            lines.append(f"optim.power {self.power:g} is not used: it is of optim.sched poly")
        if self.sched != "multistep" and self.milestones:
            lines.append(f"optim.milestones {list(self.milestones)} are not used: they are of optim.sched multistep")
        if self.sched not in ("step", "multistep") and self.decay_rate != type(self).decay_rate:
            lines.append(f"optim.decay_rate {self.decay_rate:g} is not used: it is of optim.sched step and multistep")
        return lines

    def warmup(self, epochs: float, steps_per_epoch: int) -> float:
        """Epochs of warm-up in a schedule of `epochs`."""
        if self.sched == "none":
            return 0.0
        if self.warmup_steps is not None:
            return self.warmup_steps / steps_per_epoch
        return min(5.0, epochs / 5) if self.warmup_epochs is None else self.warmup_epochs

    def scaled_lr(self, total_batch: int) -> float:
        """The learning rate at a total batch: the samples of one optimizer step over all processes."""
        ratio = total_batch / self.lr_base_batch
        return self.lr * {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.lr_scale]


@dataclass(frozen=True)
class RunConfig:
    """A run. Each task has a subclass, in which `data` is a dataclass, with whatever else it needs."""

    free_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of the task that may differ when a run is resumed, in addition to `FREE_KEYS`."""

    data: Any = None
    """The data."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    name: str | None = None
    """Name of the run; null makes one of the model's and the data's names."""
    output_dir: str | None = None
    """Run folder; null means runs/<name>. The same command again resumes the run in it."""
    restart: bool = False
    """Start over even if the run folder holds a checkpoint, which is then overwritten."""
    epochs: Annotated[int, COUNT] = 300
    """Epochs of the schedule, without its cool-down."""
    steps: Annotated[int, COUNT] | None = None
    """Optimizer steps of the whole run, cool-down included, in place of `epochs`: the last epoch may be incomplete, and
    the learning rate moves at every step. null: as many as `epochs` has."""
    max_steps: Annotated[int, COUNT] | None = None
    """Stop after this many optimizer steps in all; a larger number resumes the run later. null: to the last epoch."""
    select: Literal["val", "last", "test"] = "val"
    """Which weights are kept and tested: val, the epoch that is best on the validation data (the last one if there are
    none); last, the last epoch; test, the epoch that is best on the test data, as some papers report: the result is
    biased upwards and is shown beside that of the last epoch."""
    batch_size: Annotated[int, COUNT] = 128
    """Samples a step and process."""
    grad_accum_steps: Annotated[int, COUNT] = 1
    """Batches whose gradients are averaged into one optimizer step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no (float32), bf16, or fp16 (GPU only)."""
    compile: bool = False
    """Compile the network's blocks with torch.compile in the first step, which takes up to a minute. On a CPU, training
    is then up to 5 % faster in bf16 and no faster in float32. Only for whole images of one size: another number of
    points is compiled anew."""
    deterministic: bool = False
    """On a GPU, use deterministic algorithms only, some of which are slower; operations without one are refused. On a
    CPU results are deterministic anyway."""
    threads: Annotated[int, COUNT] | None = None
    """CPU threads of a process; null leaves torch's default. Small networks are fastest with 1."""
    seed: Annotated[int, SEED] = 42
    """Seed of weights, order, augmentation and mixing."""
    seeds: tuple[Annotated[int, SEED], ...] | None = None
    """Train once with each of these seeds, in <output_dir>/seed<n>, and report mean and deviation; null: once, with
    `seed`."""
    save_every_steps: Annotated[int, COUNT] | None = None
    """Save a checkpoint after this many steps, in addition to the one at the end of each epoch."""
    save_every_seconds: Annotated[float, NONNEGATIVE] | None = 300.0
    """Save a checkpoint this many seconds after the last one."""
    keep_epochs: Annotated[int, NATURAL] = 0
    """Also keep the weights of every N-th epoch in <output_dir>/epochs/epoch_<n>.safetensors, for the page of
    pointmix explain; 0 keeps none."""
    log_every: Annotated[int, COUNT] = 20
    """Optimizer steps between points of the loss curve."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise ValueError(f"seeds must be one or more different numbers, got {list(self.seeds)}")

    @classmethod
    def root_source(cls, root: str) -> str | None:
        """`data.source` where flags and files give `data.root` alone; None: a source must be given too."""
        return None

    @property
    def data_name(self) -> str:
        """A name for the data, in tables and in the default name of the run."""
        return type(self.data).__name__


# Keys that may differ when a run is resumed, as they do not change what is trained.
FREE_KEYS = frozenset(
    "name output_dir restart seeds max_steps save_every_steps save_every_seconds keep_epochs log_every "
    "data.workers".split()
)


def run_folder(cfg: RunConfig) -> str:
    """The run folder: `output_dir`, or runs/<name>, or runs/<model>-<data>."""
    return cfg.output_dir or f"runs/{cfg.name or f'{cfg.model.name}-{cfg.data_name}'.replace('/', '_')}"


def as_plain(cfg: Any) -> dict[str, Any]:
    """A configuration dataclass as nested dicts, lists, strings and numbers, as YAML and checkpoints hold them."""
    return _plain(dataclasses.asdict(cfg))


def changed_key(old: dict[str, Any], cfg: RunConfig) -> str | None:
    """The first key in which a run's configuration differs from its earlier one (`as_plain`), with both values; None if
    there is none.

    `FREE_KEYS` and the configuration's `free_keys` may differ, and those of `growing` may be larger now. A key that the
    earlier configuration does not have, because an earlier version wrote it, had its default value.
    """
    old = _flat(as_plain(type(cfg)())) | _flat(old)
    new = _flat(as_plain(cfg))
    for key in [*new, *(k for k in old if k not in new)]:
        before, now = old.get(key), new.get(key)
        if key in FREE_KEYS | cfg.free_keys or before == now or (key in growing(cfg) and _is_less(before, now)):
            continue
        return f"{key} was {before!r} and is now {now!r}" + (_why_fixed(cfg) if key in ("epochs", "steps") else "")
    return None


def _why_fixed(cfg: RunConfig) -> str:
    """Why the length of a run cannot change in this way, and which change is possible."""
    may = growing(cfg)
    if "epochs" in may:
        return " (it can only grow)"
    what = "default warm-up" if cfg.optim.sched in ENDLESS else f"{cfg.optim.sched} schedule"
    return f" (the {what} depends on it" + ("; a larger optim.cooldown_epochs makes the run longer)" if may else ")")


def growing(cfg: RunConfig) -> tuple[str, ...]:
    """Keys that make a run longer without changing its earlier learning rates."""
    if cfg.optim.sched in ENDLESS:  # but the default warm-up depends on the length
        by_default = cfg.optim.warmup_epochs is None and cfg.optim.warmup_steps is None
        return () if cfg.optim.sched != "none" and by_default else ("epochs", "steps")
    return ("optim.cooldown_epochs",) if cfg.steps is None else ()


def is_longer(old: dict[str, Any], cfg: RunConfig) -> bool:
    """Whether a configuration makes a run longer than an earlier one (`as_plain`) did."""
    old, new = _flat(old), _flat(as_plain(cfg))
    return any(_is_less(old.get(key), new[key]) for key in growing(cfg))


def _is_less(before: Any, now: Any) -> bool:
    return isinstance(before, int | float) and isinstance(now, int | float) and before < now


def _check_known(key: str, value: str, known: Sequence[str]) -> None:
    """Refuse an unknown name and suggest similar ones."""
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
