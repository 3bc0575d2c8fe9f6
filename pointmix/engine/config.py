"""What a training run is made of: dataclasses, read from YAML files and command-line flags by jsonargparse."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pointmix.data.images import DataConfig, resolve


@dataclass(frozen=True)
class ModelConfig:
    """The network: one of ours or any model of timm."""

    name: str = "coc_tiny"
    """Model name; pointmix.list_models() and timm.list_models() say which there are."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Constructor arguments, such as {"drop_path_rate": 0.1}; classes and channels come from the data."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    opt: str = "adamw"
    """Optimizer name, as timm knows it."""
    lr: float = 1e-3
    """Learning rate at a total batch of `lr_base_batch`; scaled linearly to the real total batch."""
    lr_base_batch: int = 1024
    """Total batch (processes x batch_size x accum) for which `lr` is meant."""
    weight_decay: float = 0.05
    """Weight decay; none on biases, on 1-D tensors and on what the model's no_weight_decay() names."""
    betas: tuple[float, float] | None = None
    """Moment decays of Adam-like optimizers; null leaves the optimizer's default."""
    clip_grad: float | None = None
    """Largest norm of the whole gradient; null does not clip."""
    sched: str = "cosine"
    """Schedule name, as timm knows it; not plateau, whose state timm does not save."""
    warmup_epochs: float = 5
    """Epochs of linear warm-up, counted inside `epochs`."""
    warmup_lr: float = 1e-6
    """Learning rate at the start of the warm-up."""
    min_lr: float = 1e-6
    """Learning rate at the end of the schedule."""
    cooldown_epochs: int = 0
    """Epochs at `min_lr` after the schedule, in addition to `epochs`."""
    sched_on_updates: bool = False
    """Move the learning rate at every step instead of every epoch; better for short runs."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, which is then what is selected and tested; null: none."""
    ema_warmup: bool = True
    """Let the decay of the average rise from zero over the first steps."""


@dataclass(frozen=True)
class MixConfig:
    """Mixing of images and smoothing of labels in a batch."""

    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0 is off."""
    switch_prob: float = 0.5
    """Chance of CutMix rather than mixup in a batch when both are on."""
    smoothing: float = 0.0
    """Label smoothing."""


@dataclass(frozen=True)
class TrainConfig:
    """Train an image classifier."""

    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and schedule."""
    mix: MixConfig = field(default_factory=MixConfig)
    """Mixup, CutMix, label smoothing."""
    name: str | None = None
    """Name of the run; null makes one of the model's and the data's names."""
    out: str | None = None
    """Run folder; null means runs/<name>. The same command again goes on from what it finds there."""
    restart: bool = False
    """Start anew although the run folder holds a checkpoint, which is then overwritten."""
    epochs: int = 300
    """Epochs of the schedule, without its cool-down."""
    max_steps: int | None = None
    """End after so many optimizer steps in all; a larger number later goes on from there. null: to the last epoch."""
    batch_size: int = 128
    """Images a step and process."""
    accum: int = 1
    """Batches whose gradients are averaged into one optimizer step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no (float32), bf16, or fp16 (GPU only)."""
    compile: bool = False
    """Compile the network with torch.compile."""
    threads: int | None = None
    """CPU threads a process computes with; null leaves torch's choice. Small networks are fastest with 1."""
    seed: int = 42
    """Seed of weights, order, augmentation and mixing."""
    save_every_steps: int | None = None
    """Save a checkpoint every so many steps, beside the one at each epoch's end."""
    save_every_seconds: float | None = 300.0
    """Save a checkpoint when so many seconds have gone since the last one."""
    log_every: int = 20
    """Optimizer steps between points of the loss curve."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accum", "log_every"):
            _at_least_one(key, getattr(self, key))
        for key in ("max_steps", "save_every_steps", "threads"):
            if getattr(self, key) is not None:
                _at_least_one(key, getattr(self, key))
        if (self.mix.mixup > 0 or self.mix.cutmix > 0) and self.batch_size % 2:
            raise ValueError(f"batch_size must be even with mixup or cutmix, got {self.batch_size}")
        if self.optim.sched == "plateau":
            raise ValueError("optim.sched plateau is not taken; expected cosine, tanh, step, multistep, poly or none")
        resolve(self.data)  # refuses what is out of range before anything is read


# Keys that may differ when a run goes on, because they do not change what is trained. All others must be as they were.
FREE_KEYS = frozenset(
    "name out restart max_steps save_every_steps save_every_seconds log_every data.workers".split()
)


def run_folder(cfg: TrainConfig) -> str:
    """The run folder: `out`, or runs/<name>, or runs/<model>-<data>."""
    return cfg.out or f"runs/{cfg.name or f'{cfg.model.name}-{data_name(cfg.data)}'.replace('/', '_')}"


def data_name(data: DataConfig) -> str:
    """What to call the data: the folder's name, or that of the source."""
    return Path(data.root).resolve().name if data.root and data.source == "folder" else data.source


def as_plain(cfg: Any) -> dict[str, Any]:
    """A configuration dataclass as nested dicts, lists, strings and numbers, as YAML and checkpoints hold them."""
    return _plain(dataclasses.asdict(cfg))


def changed_key(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Say which key of two configurations (`as_plain`) differs first, FREE_KEYS apart; None if none does."""
    old, new = _flat(old), _flat(new)
    for key in [*new, *(k for k in old if k not in new)]:
        if key in FREE_KEYS or old.get(key) == new.get(key):
            continue
        return f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
    return None


def parse(argv: list[str], *, default_config: str | None = None) -> TrainConfig:
    """Read flags and `--config` files into a TrainConfig.

    Files come first, wherever they stand among the flags, so flags always win. `default_config` is a YAML file taken
    when `argv` names none. Flags that name another model than the files do leave behind the files' model.kwargs.

    Raises:
        ValueError: one line that names the key or file at fault.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="train_image.py", description=TrainConfig.__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of the keys below; flags win.")
    parser.add_class_arguments(TrainConfig)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append")
    try:
        known, flags = first.parse_known_args(argv)
        named = known.config or ([default_config] if default_config is not None else [])
        files = [f"--config={name}" for name in named]
        settings = [flag for flag in flags if not flag.startswith("--print_config")]  # which would print and exit
        if parser.parse_args([*files, *settings]).model.name != parser.parse_args(files).model.name:
            files.append("--model.kwargs={}")
        found = parser.instantiate(parser.parse_args([*files, *flags]))
    except (ArgumentError, TypeError, OSError) as e:
        raise ValueError(" ".join(str(e).split())) from e
    return TrainConfig(**{f.name: found[f.name] for f in dataclasses.fields(TrainConfig)})


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{key} must be at least 1, got {value}")


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
