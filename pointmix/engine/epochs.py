"""Weights of single epochs of a run, in the folder `epochs`: how clusters form while a network learns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from pointmix.engine.checkpoint import FINAL, load_weights, read_weights, save_model
from pointmix.engine.run import Run

FOLDER = "epochs"
NAME = re.compile(r"epoch_(\d+)\.safetensors")

Weights = tuple[str, Callable[[nn.Module], None]]  # a label, and what loads them


def keep_epoch(run: Run) -> None:
    """Write the weights that were validated at the end of an epoch, if `keep_epochs` asks for this one.

    Raises:
        OSError: writing failed.
    """
    every, epoch = run.cfg.keep_epochs, run.state.epoch
    if every and epoch % every == 0:
        save_model(run.folder / FOLDER / f"epoch_{epoch}.safetensors", run.eval_model, run.info)


def kept_epochs(run: str | Path) -> list[Weights]:
    """Labels and loaders of the kept epochs of a run folder in the order of training, then of its selected weights;
    empty if no epoch was kept. A loader raises ValueError or OSError with the name of its file if that is damaged."""
    numbers = {int(match[1]): path for path in Path(run, FOLDER).glob("*") if (match := NAME.fullmatch(path.name))}
    if not numbers:
        return []
    epochs = [(f"epoch {number}", partial(_load, path)) for number, path in sorted(numbers.items())]
    return [*epochs, (_selected(Path(run)), partial(_load, Path(run, FINAL)))]


def _selected(run: Path) -> str:
    try:
        return f"epoch {json.loads((run / 'metrics.json').read_text())['selected']['epoch']:g}, selected"
    except (OSError, ValueError, LookupError, TypeError):  # the weights can be shown without it
        return "selected weights"


def _load(path: Path, model: nn.Module) -> None:
    file, weights, _ = read_weights(path)
    load_weights(model, weights, source=file)
