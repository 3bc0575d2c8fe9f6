"""What detectors are trained on, as torchvision's heads take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

BACKGROUND = 1  # classes before ours in torchvision's heads


@runtime_checkable
class BoxTarget(Protocol):
    """The M objects of an image, in pixels of the lattice; M may be 0.

    boxes are corners x1, y1, x2, y2, labels are classes from 0, and masks (M, h, w) are 0 or 1 over the image or the
    lattice; None if the data have boxes only.
    """

    @property
    def boxes(self) -> Float[Tensor, "M 4"]: ...

    @property
    def labels(self) -> Int[Tensor, "M"]: ...

    @property
    def masks(self) -> Shaped[Tensor, "M h w"] | None: ...


def as_dicts(
    targets: Sequence[BoxTarget],
    sizes: Sequence[tuple[int, int]],
    *,
    num_classes: int,
    masks: bool,
    dtype: torch.dtype,
) -> list[dict[str, Tensor]]:
    """Targets in torchvision's form, where class 0 is the background.

    Args:
        sizes: rows and columns of each image.
        masks: whether the network has a mask head.
        dtype: of the boxes.

    Raises:
        ValueError: if a box is not finite or has no area, a label is out of range, or masks are missing or smaller than
            the image; one line.
    """
    found = []
    for i, (target, (rows, cols)) in enumerate(zip(targets, sizes, strict=True)):
        boxes, labels = target.boxes, target.labels
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"target {i} must have boxes (M, 4) and labels (M,), got {shapes}")
        flat = ~((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1))
        if flat.any():
            box = boxes[flat][0].tolist()
            raise ValueError(f"target {i} has the box {box}, expected finite corners x1 < x2 and y1 < y2")
        wrong = (labels < 0) | (labels >= num_classes)
        if wrong.any():
            raise ValueError(f"target {i} has label {int(labels[wrong][0])}, expected 0 to {num_classes - 1}")
        found.append(dict(boxes=boxes.to(dtype), labels=labels.long() + BACKGROUND))
        if masks:
            given = () if target.masks is None else tuple(target.masks.shape)
            if target.masks is None or given[:1] != boxes.shape[:1] or len(given) != 3:
                shape = f"({len(boxes)}, h, w)"
                raise ValueError(f"target {i} must have masks {shape} for the mask head, got {given or 'none'}")
            if given[1] < rows or given[2] < cols:
                raise ValueError(f"target {i} has masks {given}, expected those of an image of {rows} x {cols}")
            found[-1]["masks"] = target.masks
    return found
