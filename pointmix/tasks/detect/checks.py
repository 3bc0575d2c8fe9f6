"""A detector tried on a blank image before hours of work, as in evaluation and as in training."""

from __future__ import annotations

import copy

import torch
from torch import nn

from pointmix.data.detect.sample import Target
from pointmix.pointset import PointSet
from pointmix.tasks.checks import try_input
from pointmix.tasks.protocols import to_device
from pointmix.utils.messages import is_out_of_memory


@torch.no_grad()
def try_detector(model: nn.Module, name: str, blank: PointSet, size: tuple[int, int], *, what: str, masks: bool,
                 images: int) -> None:  # fmt: skip
    """Run a detector on blank images.

    Args:
        model: it is left unchanged.
        name: what to call it.
        blank: one image, which fills its lattice.
        size: rows and columns of it.
        what: what to call the image.
        masks: whether the object of the training step has a mask.
        images: number of images of the training step.

    Raises:
        ValueError: it does not take such images, or has no finite loss.
    """
    device = next(model.parameters()).device
    sizes = torch.tensor([size])
    try_input(model, name, blank, what=what, more=(sizes,))
    target = to_device(blank_target(size, masks), device)
    points = PointSet.cat([blank] * images).to(device)
    try:
        network = copy.deepcopy(model).train()  # a copy: its running means move
        losses = network(points, sizes.repeat(images, 1).to(device), [target] * images)
    except Exception as e:  # a network of any library can fail in any way
        why = (str(e).splitlines() or [type(e).__name__])[0]
        if is_out_of_memory(e):
            why = "they need more memory than there is"
        raise ValueError(f"{name} does not train on {what}: {why}") from e
    bad = [key for key, loss in losses.items() if not torch.isfinite(loss)]
    if bad:
        raise ValueError(f"{name} has the {bad[0]} {losses[bad[0]].item()} for blank {what}, expected a finite number")


def blank_target(size: tuple[int, int], masks: bool) -> Target:
    """An object of the first class in the middle of an image, half as high and wide."""
    rows, columns = size
    box = torch.tensor([[columns / 4, rows / 4, 3 * columns / 4, 3 * rows / 4]])
    mask = torch.zeros(1, rows, columns, dtype=torch.uint8)
    mask[:, rows // 4 : 3 * rows // 4, columns // 4 : 3 * columns // 4] = 1
    return Target(box, torch.zeros(1, dtype=torch.int64), mask if masks else None)
