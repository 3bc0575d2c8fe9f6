"""What the tensors of a set of points must be to fit together."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.io.arrays import as_tensor
from pointmix.io.images import as_floats
from pointmix.io.pixels import check_finite
from pointmix.utils.tracing import traced


def check_fields(pos: Float[Tensor, "N D"], feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B+1"]) -> None:
    """Raise ValueError unless these are the fields of a `PointSet`, see there."""
    if not (isinstance(pos, Tensor) and isinstance(ptr, Tensor)):
        kinds = f"{type(pos).__name__} and {type(ptr).__name__}"
        raise ValueError(f"PointSet: pos and ptr must be tensors, got {kinds}; from_points takes arrays")
    if pos.ndim != 2 or feat.ndim != 2 or pos.shape[0] != feat.shape[0]:
        raise ValueError(
            f"PointSet: pos and feat must be (N, D) and (N, C), got {tuple(pos.shape)} and {tuple(feat.shape)}"
        )
    if ptr.ndim != 1 or ptr.numel() < 2 or ptr.dtype != torch.int64:
        raise ValueError(f"PointSet: ptr must be (B + 1,) int64 with B >= 1, got {tuple(ptr.shape)} {ptr.dtype}")
    if ptr.device.type == "cpu" and not traced(ptr):
        ends = ptr[[0, -1]].tolist()
        if ends != [0, len(feat)] or ptr.diff().min() < 1:
            shown = f"{ptr.tolist() if len(ptr) < 9 else ends}"
            if len(ptr) == len(feat):
                shown += "; for a batch vector, the set of each point, it is a 0 and then its bincount().cumsum(0)"
            raise ValueError(f"PointSet: ptr must rise from 0 to {len(feat)} with a point in every set, got {shown}")
    if not (pos.is_floating_point() and feat.is_floating_point()):
        raise ValueError(f"PointSet: pos and feat must be floating point, got {pos.dtype}, {feat.dtype}")


def checked_points(
    xyz: Float[Tensor, "N D"] | np.ndarray, feat: Float[Tensor, "N C"] | np.ndarray | None
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]:
    """Positions and features of one cloud as tensors. Arguments and errors: `PointSet.from_points`."""
    usual = xyz.dtype if isinstance(xyz, Tensor) else torch.get_default_dtype()
    xyz = as_tensor(xyz, "from_points: xyz", double=True)
    if feat is None:
        feat = torch.zeros(len(xyz) if xyz.ndim else 0, 0, dtype=usual, device=xyz.device)
    values = as_tensor(feat, "from_points: feat")
    if not values.is_floating_point() and values.dtype not in (torch.bool, torch.uint8, torch.uint16):
        raise ValueError(
            f"from_points: pos and feat must be floating point, got {xyz.dtype}, {values.dtype}; only bytes and "
            "unsigned 16-bit integers have a known range and become [0, 1]"
        )
    feat = as_floats(values) if isinstance(feat, Tensor) else as_floats(values).to(usual)
    feat = feat[:, None] if feat.ndim == 1 else feat
    if xyz.ndim != 2 or feat.ndim != 2 or len(xyz) != len(feat) or min(xyz.shape) < 1:
        raise ValueError(
            "from_points: expected positions (N, D) and features (N, C) of at least one point, got "
            f"{tuple(xyz.shape)} and {tuple(feat.shape)}"
        )
    check_finite(xyz, "from_points: xyz", "points")
    check_finite(feat, "from_points: feat", "points")
    return xyz, feat
