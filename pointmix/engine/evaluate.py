"""The evaluation loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from pointmix.tasks.protocols import Batch, Metric, Metrics, Processes, to_device


@torch.no_grad()  # not inference_mode: training reuses what a model caches here
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    metric: Metric[Batch],
    device: torch.device | str = "cpu",
    to_device: Callable[[Batch, torch.device | str], Batch] = to_device,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    processes: Processes | None = None,
) -> Metrics:
    """Metrics of a network over all batches, in evaluation mode; its mode is as before afterwards.

    Args:
        model: a network on `device`.
        batches: as the metric takes them, once `to_device` has moved them.
        autocast: makes the context of mixed precision.
        processes: the others, each with batches of its own, perhaps none; None: this process is the only one.

    Raises:
        ValueError: there was nothing to evaluate, in any process.
    """
    was_training = model.training
    model.eval()
    metric.reset()
    for batch in batches:
        batch = to_device(batch, device)
        with autocast():
            metric.update(model, batch)
    model.train(was_training)
    if processes is not None:
        metric.combine(processes)
    return metric.compute()
