"""A network tried on one input before hours of work."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pointmix.utils.messages import is_out_of_memory


@torch.no_grad()
def try_input(
    model: nn.Module,
    name: str,
    blank: Any,
    *,
    what: str,
    classes: int | None = None,
    rows: int = 1,
    more: tuple[Any, ...] = (),
    single: bool = False,
) -> None:
    """Run a network on a blank input of one sample.

    Args:
        model: its mode is as before afterwards.
        name: what to call it.
        blank: the input; has `to(device)`.
        what: what to call the input, such as "images of 3x224x224".
        classes: the expected output is (rows, classes); None accepts any.
        more: other inputs, tensors on the CPU.
        single: try it in training mode too, as the whole batch.

    Raises:
        ValueError: the network cannot take the input, gives another shape, or needs batches of at least two.
    """
    was_training, device = model.training, next(model.parameters()).device
    inputs = [value.to(device) for value in (blank, *more)]
    try:
        output = model.eval()(*inputs)
    except Exception as e:  # a network of any library can fail in any way
        why = (str(e).splitlines() or [type(e).__name__])[0]
        if is_out_of_memory(e):
            why = "they need more memory than there is"
        raise ValueError(f"{name} does not take {what}: {why}") from e
    finally:
        model.train(was_training)
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if classes is not None and shape != (rows, classes):
        expected = f"expected {(rows, classes)}, a value for each class; leave out global_pool in model.kwargs"
        raise ValueError(f"{name} gives {shape} for one of {what}, {expected}")
    if single and any(isinstance(module, _BatchNorm) for module in model.modules()):
        try:
            copy.deepcopy(model).train()(*inputs)  # a copy: its running means move
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):  # torch's words
                raise
            raise ValueError(f"batch_size must be at least 2 for {name}, whose BatchNorm is over a batch, got 1") from e
