"""Lets torchvision be imported with any build of torch.

The torchvision wheel of the package index is a CUDA build. With another build of torch its binary does not load, and
the import fails because torchvision registers shape functions for `nms` and `qnms`, operators that the binary would
have declared. This module declares both if, and only if, the binary does not load, with a kernel in plain torch for
`nms`. The package has it imported right after torch, before torchvision or timm; it imports neither.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import types

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.utils.lazy import when_imported

_BLOCK = 128  # boxes that are compared with all others at a time
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def nms(boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float) -> Int[Tensor, "K"]:
    """Greedy non-maximum suppression, in blocks of the best boxes that are left.

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
    left = scores.detach().sort(descending=True, stable=True).indices  # (L,) neither kept nor suppressed yet
    kept = []
    while left.numel():
        block, left = left[:_BLOCK], left[_BLOCK:]
        suppresses = (_iou(boxes[block], boxes[block]) > iou_threshold).triu(1)  # (b, b), of later boxes
        keep, before = torch.ones_like(block, dtype=torch.bool), None
        # A box is kept if no kept box before it suppresses it: settled for one more box, at least, in each round.
        while before is None or not torch.equal(keep, before):
            before, keep = keep, ~suppresses[keep].any(dim=0)
        kept.append(block[keep])
        if left.numel():
            left = left[~(_iou(boxes[block[keep]], boxes[left]) > iou_threshold).any(dim=0)]
    return torch.cat(kept) if kept else left


def _iou(a: Float[Tensor, "M 4"], b: Float[Tensor, "N 4"]) -> Float[Tensor, "M N"]:
    """Intersection over union. Two empty boxes give 0 / 0: neither suppresses the other."""
    area_a, area_b = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b))
    width = (torch.minimum(a[:, None, 2], b[:, 2]) - torch.maximum(a[:, None, 0], b[:, 0])).clamp_(min=0)
    height = (torch.minimum(a[:, None, 3], b[:, 3]) - torch.maximum(a[:, None, 1], b[:, 1])).clamp_(min=0)
    overlap = width.mul_(height)
    return overlap / (area_a[:, None] + area_b - overlap)


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
