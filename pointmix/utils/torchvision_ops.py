"""Lets torchvision be imported with any build of torch.

The torchvision wheel of the package index is a CUDA build. With another build of torch its binary does not load, and
the import fails because torchvision registers shape functions for `nms` and `qnms`, operators that the binary would
have declared. This module declares both if, and only if, the binary does not load, with a kernel in plain torch for
`nms`. Import it before torchvision or timm; it imports neither.
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
    """Greedy non-maximum suppression, one vectorized step per kept box.

    Args:
        boxes: corners (x1, y1, x2, y2), any unit.
        scores: one per box; of boxes with equal scores the first is kept.
        iou_threshold: boxes with a larger intersection over union with a kept box are suppressed.
    Returns:
        int64 indices of the kept boxes, by decreasing score.
    Raises:
        ValueError: for other shapes.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        found = f"{tuple(boxes.shape)} and {tuple(scores.shape)}"
        raise ValueError(f"nms expects boxes (N, 4) and scores (N,), got {found}")
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))  # areas are inaccurate in half precision
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # (N,)
    left = scores.detach().sort(descending=True, stable=True).indices  # (L,) neither kept nor suppressed yet
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
    """Load torchvision's binary the way torchvision does; whether its operators are available."""
    spec = importlib.util.find_spec("torchvision")  # finds the folder, imports nothing
    binary = spec and importlib.machinery.PathFinder.find_spec("_C", list(spec.submodule_search_locations or []))
    if not binary or not binary.origin:
        return False
    try:
        torch.ops.load_library(binary.origin)  # loading it again, as torchvision does, is a no-op
    except OSError:
        return False
    return True


def _use_own_nms(boxes_module: types.ModuleType) -> None:
    # torchvision's own function requires the binary
    boxes_module.nms = torch.ops.torchvision.nms  # type: ignore[attr-defined]


def _declare_missing_operators() -> None:
    if hasattr(torch.ops.torchvision, "nms") or _binary_loads():
        return
    # torchvision itself registers the fake kernels of both.
    torch.library.define("torchvision::nms", _SCHEMA)
    torch.library.define("torchvision::qnms", _SCHEMA)
    torch.library.impl("torchvision::nms", ("cpu", "cuda"), nms)
    when_imported("torchvision.ops.boxes", _use_own_nms)


_declare_missing_operators()
