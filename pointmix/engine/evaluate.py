"""The evaluation loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pointmix.utils.messages import is_out_of_memory


@torch.no_grad()  # not inference_mode: what a model caches here must serve training too
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor]],
    *,
    task: Any,
    device: torch.device | str = "cpu",
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, Any]:
    """Metrics of `model` over all batches, in evaluation mode; the model's mode is as before afterwards.

    Args:
        model: a network on `device`.
        batches: (input, targets) pairs; on the device, where `to` brings both, inputs are as the task takes them.
        task: see pointmix.tasks; `measure` gives sums for a batch, `summarize` turns their total, from `zeros` on, into
            metrics.
        device: where the network lies.
        autocast: makes the context for mixed precision.
        reduce: adds the sums of all processes, some of which may have had no batch.

    Raises:
        ValueError: if there was nothing to evaluate, in every process alike.
    """
    was_training = model.training
    model.eval()
    total = task.zeros(torch.device(device))
    for inputs, targets in batches:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        with autocast():
            total += task.measure(model, inputs, targets)
    model.train(was_training)
    return task.summarize(reduce(total))


def check_input(
    model: nn.Module, name: str, *, in_chans: int, img_size: int, classes: int | None = None, alone: bool = False
) -> None:
    """Try one blank image, before hours of work; `classes` and `alone` as in `try_input`.

    Raises:
        ValueError: if the model cannot take it; one line.
    """
    what = f"images of {in_chans}x{img_size}x{img_size}"
    try:
        blank = torch.zeros(1, in_chans, img_size, img_size)
    except RuntimeError as e:
        raise ValueError(f"{what} do not fit into memory") from e
    try_input(model, name, blank, what=what, classes=classes, alone=alone)


@torch.no_grad()
def try_input(
    model: nn.Module, name: str, blank: Any, *, what: str, classes: int | None = None, alone: bool = False
) -> None:
    """Try one input, `alone` also in training, where it will be all of a batch.

    Raises:
        ValueError: if the model cannot take it, or does not give one value for each of so many `classes`; one line that
            says `what` it was, or that batch_size is too small.
    """
    was_training, device = model.training, next(model.parameters()).device
    blank = blank.to(device)
    try:
        found = model.eval()(blank)
    except Exception as e:  # a network of any library can fail in any way
        why = (str(e).splitlines() or [type(e).__name__])[0]
        if is_out_of_memory(e):
            why = "they need more memory than there is"
        raise ValueError(f"{name} does not take {what}: {why}") from e
    finally:
        model.train(was_training)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if classes is not None and shape != (1, classes):
        expected = f"expected {(1, classes)}, a value for each class; leave out global_pool in model.kwargs"
        raise ValueError(f"{name} gives {shape} for one of {what}, {expected}")
    if alone and any(isinstance(module, _BatchNorm) for module in model.modules()):
        try:
            copy.deepcopy(model).train()(blank)  # a copy, as its running means move
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):  # torch's words
                raise
            raise ValueError(f"batch_size must be at least 2 for {name}, whose BatchNorm is over a batch, got 1") from e
