"""Lets torchvision be imported beside any torch.

The registry's torchvision is a CUDA build. Beside a torch of another build its binary does not load, and the import
dies because torchvision describes shapes for `nms` and `qnms`, operators that the binary would have declared. Here
both are declared when, and only when, the binary did not load, and `nms` gets a kernel in plain torch.
Import this module before torchvision or timm. It imports neither.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import types

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.utils.lazy import when_imported

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float) -> Int[Tensor, "K"]:
    """Greedy non-maximum suppression, one vectorized step a kept box.

    Args:
        boxes: corners (x1, y1, x2, y2), any unit.
        scores: one a box; of equal scores the box that comes first wins.
        iou_threshold: a box that overlaps a kept one by more than this (intersection over union) goes.
    Returns:
        int64 indices of the kept boxes, by falling score.
    Raises:
        ValueError: for other shapes.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        found = f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
        raise ValueError(f"nms expects boxes (N, 4) and scores (N,), got {found}")
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))  # half precision would misjudge areas
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # (N,)
    left = scores.detach().sort(descending=True, stable=True).indices  # (L,) not yet kept nor suppressed
    kept = []
    while left.numel():
        best, left = left[0], left[1:]
        kept.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[left, :2])  # (L, 2)
        sides = (torch.minimum(boxes[best, 2:], boxes[left, 2:]) - corner).clamp(min=0)  # (L, 2)
        overlap = sides.prod(dim=1)  # (L,)
        iou = overlap / (area[best] + area[left] - overlap)
        left = left[~(iou > iou_threshold)]  # two empty boxes give 0/0: neither suppresses the other
    return torch.stack(kept) if kept else left


def _binary_loads() -> bool:
    """Whether torchvision's operators are there, loading its binary the way torchvision does."""
    spec = importlib.util.find_spec("torchvision")  # finds the folder, imports nothing
    binary = spec and importlib.machinery.PathFinder.find_spec("_C", list(spec.submodule_search_locations or []))
    if not binary or not binary.origin:
        return False
    try:
        torch.ops.load_library(binary.origin)  # a second load of the same file, by torchvision, is a no-op
    except OSError:
        return False
    return True


def _use_own_nms(boxes_module: types.ModuleType) -> None:
    boxes_module.nms = torch.ops.torchvision.nms  # torchvision's own refuses to run without the binary


def _mend() -> None:
    if hasattr(torch.ops.torchvision, "nms") or _binary_loads():
        return
    # torchvision itself adds the shape rules (fake kernels) for both.
    torch.library.define("torchvision::nms", _SCHEMA)
    torch.library.define("torchvision::qnms", _SCHEMA)
    torch.library.impl("torchvision::nms", ("cpu", "cuda"), nms)
    when_imported("torchvision.ops.boxes", _use_own_nms)


_mend()
