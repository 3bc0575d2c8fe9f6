"""The evaluation loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()  # not inference_mode: what a model caches here must serve training too
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    task: Any,
    device: torch.device | str = "cpu",
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, float]:
    """Metrics of `model` over all batches, in evaluation mode; the model's mode is as before afterwards.

    Args:
        model: a network on `device`.
        batches: (images, targets) pairs as the task takes them.
        task: see pointmix.tasks; `measure` gives sums for a batch, `summarize` turns their total into metrics.
        device: where the network lies.
        autocast: makes the context for mixed precision.
        reduce: adds the sums of all processes.

    Raises:
        ValueError: if there was nothing to evaluate.
    """
    was_training = model.training
    model.eval()
    total: Tensor | None = None
    for images, targets in batches:
        images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        with autocast():
            sums = task.measure(model, images, targets)
        total = sums if total is None else total + sums
    model.train(was_training)
    if total is None:
        raise ValueError("nothing to evaluate: the loader gave no batch, expected at least one")
    return task.summarize(reduce(total))
