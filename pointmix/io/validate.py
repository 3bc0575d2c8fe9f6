"""Checks of the arrays that point sets are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.utils.limits import check_array
from pointmix.utils.tracing import traced

if TYPE_CHECKING:
    import h5py


def check_finite(values: Float[Tensor, "*N C"], what: str, unit: str = "pixels") -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).any(-1).sum())
        raise ValueError(
            f"{what} holds NaN or infinite values at {bad} of {len(values)} {unit}, expected finite numbers"
        )


def check_fields(pos: Tensor, feat: Tensor, ptr: Tensor) -> None:
    """Raise ValueError unless these are (N, D), (N, C) and (B + 1,) as `PointSet` describes them."""
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
            if len(ptr) == len(feat) and ptr.min() >= 0:
                shown += (
                    "; if this is a batch vector (the set of each point, as in PyTorch Geometric), use its ptr or "
                    "torch.nn.functional.pad(batch.bincount().cumsum(0), (1, 0))"
                )
            raise ValueError(f"PointSet: ptr must rise from 0 to {len(feat)} with a point in every set, got {shown}")
    if not (pos.is_floating_point() and feat.is_floating_point()):
        raise ValueError(f"PointSet: pos and feat must be floating point, got {pos.dtype}, {feat.dtype}")


def check_numbers(name: str, found: object) -> np.ndarray | h5py.Dataset:
    """An entry of an HDF5 file or an archive, if it is an array of numbers.

    Raises:
        ValueError: if it is a group, or an array of anything else.
    """
    if not hasattr(found, "dtype"):
        raise ValueError(f"{name} is a {type(found).__name__.lower()}, expected an array")
    if found.dtype.kind not in "uifbc":  # text and objects have no size of their own
        raise ValueError(f"{name} are {found.dtype}, expected numbers")
    return found


def check_read(array: h5py.Dataset | np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Raise TooLarge if a part of this shape, or a chunk of the dataset, exceeds the limit ARRAY_BYTES."""
    check_array(shape, array.dtype.itemsize, name)
    check_array(getattr(array, "chunks", None) or (), array.dtype.itemsize, f"a chunk of {name}")
