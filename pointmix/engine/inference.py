"""Trained networks for the scripts that evaluate, predict and explain."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pointmix.engine.checkpoint import load_run
from pointmix.engine.init_sources import local_weights
from pointmix.tasks.base import get_task, list_tasks
from pointmix.tasks.protocols import Info


def pick_device(name: str | None) -> torch.device:
    """The device of that name; None takes the GPU where there is one.

    Raises:
        ValueError: this machine, or this build of torch, has no such device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as e:
        raise ValueError(f"no device {name!r} here, expected one such as cpu or cuda:0: {e}".splitlines()[0]) from e
    return torch.device(name)


def open_model(
    *,
    run: str | None = None,
    model: str | None = None,
    checkpoint: str | None = None,
    task: str | None = None,
    kwargs: dict[str, Any] | None = None,
    data: Any = None,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, Info]:
    """A network in evaluation mode, and its info.

    Args:
        run: a run folder, or the model.safetensors of one, or "hf-hub:OWNER/NAME", see `local_weights`.
        model: instead of a run, the name of a network.
        task: name of the task that opens `model`; a run names its own, which must be this one.
        checkpoint: weights for `model`; without them they are random, with a warning.
        kwargs: arguments of the network, in place of the run's own.
        data: see `pointmix.tasks.base.Task.open_named`.

    Raises:
        FileNotFoundError: there is no such run or checkpoint.
        ValueError: not exactly one of run and model is given, or the weights do not fit or cannot be downloaded.
    """
    if (run is None) == (model is None):
        raise ValueError("give one of --run and --model")
    if run is not None and checkpoint is not None:
        raise ValueError("--checkpoint goes with --model; a run has its own weights")
    if run is not None:
        network, info = load_run(local_weights(run), device=device, kwargs=kwargs)
        if task is not None and task != info["task"]:
            raise ValueError(f"{run} is a run of {info['task']}, got --task {task}")
        return network, info
    if model is None or task is None:
        raise ValueError(f"--model {model} does not say its task; expected one of {', '.join(list_tasks())} as --task")
    network, info = get_task(task).open_named(model, checkpoint=checkpoint, kwargs=kwargs, data=data)
    return network.to(device).eval(), info | {"task": task}
