"""Checks of the arrays that point sets are made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from pointmix.io.errors import UnreadableSample
from pointmix.utils.limits import check_array
from pointmix.utils.tracing import traced

if TYPE_CHECKING:
    import h5py

COARSE = (
    "positions in single precision lie so far from the origin that they are rounded to a thousandth of the cloud's "
    "size or more; store them in double precision, or take the offset off before they are stored"
)
MOST_DIMENSIONS = 32  # an array of two or three rows and more columns is taken for a transposed one


def check_finite(values: Float[Tensor, "*N C"], what: str, unit: str = "pixels") -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if not torch.isfinite(values).all():
        bad = (~torch.isfinite(values)).any(-1).flatten()
        raise ValueError(
            f"{what} holds NaN or infinite values at {int(bad.sum())} of {len(values)} {unit}, the first at "
            f"{int(bad.int().argmax())}; expected finite numbers"
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
        bounds = ptr.numpy()  # several times faster than a few operations of torch
        ends = [int(bounds[0]), int(bounds[-1])]
        if ends != [0, len(feat)] or (bounds[1:] <= bounds[:-1]).any():
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


def as_positions(found: Shaped[np.ndarray, "..."], dims: int | None = None) -> Float[np.ndarray, "N D"]:
    """Positions as float32, or float64 where they have as many bytes.

    Args:
        dims: D; None: any.

    Raises:
        UnreadableSample: for another shape or type, or no point.
    """
    wanted = "D" if dims is None else str(dims)
    if found.ndim != 2 or found.shape[1] != (dims or found.shape[1]) or found.dtype.kind not in "uifb":
        hint = "; they are transposed" if found.ndim == 2 and found.shape[0] == dims else ""
        raise UnreadableSample(f"positions are {found.shape} {found.dtype}, expected numbers (N, {wanted}){hint}")
    if min(found.shape) < 1:
        raise UnreadableSample(f"expected at least one point, got positions of shape {found.shape}")
    wide = found.dtype.itemsize > 4 or found.dtype.kind != "f" and found.dtype.itemsize == 4
    pos = np.ascontiguousarray(found, dtype=np.float64 if wide else np.float32)
    if not wide:
        low, high = pos.min(0), pos.max(0)
        step = np.spacing(np.maximum(np.abs(low), np.abs(high))).max()
        if (high - low).max() < 1000 * step and (high > low).any():
            warnings.warn(COARSE, stacklevel=2)
    return pos


def check_upright(shape: Sequence[int]) -> None:
    """Raise UnreadableSample for positions of two or three points in very many dimensions."""
    if len(shape) == 2 and shape[0] in (2, 3) and shape[1] > MOST_DIMENSIONS:
        raise UnreadableSample(f"positions are {tuple(shape)}, expected (N, {shape[0]}): they are transposed")


def finite_rows(
    pos: Float[np.ndarray, "N D"], features: Mapping[str, Shaped[np.ndarray, "N ..."]], *, drop: bool
) -> Bool[np.ndarray, " N"] | None:
    """Which points have no NaN or infinite value; None: all.

    Args:
        drop: only refuse a cloud without any such point.

    Raises:
        UnreadableSample: if a point has such a value.
    """
    if not len(pos):
        raise UnreadableSample("it has no point")
    good = np.ones(len(pos), dtype=bool)
    for name, value in {"positions": pos, **features}.items():
        if value.dtype.kind != "f":
            continue
        finite = np.isfinite(value).reshape(len(pos), -1).all(1)
        if not (drop or finite.all()):
            raise UnreadableSample(
                f"{name} hold NaN or infinite values at {(~finite).sum()} of {len(pos)} points, the first at "
                f"{finite.argmin()}; nan drop leaves them out"
            )
        good &= finite
    if not good.any():
        raise UnreadableSample(f"all {len(pos)} points hold NaN or infinite values")
    return None if good.all() else good
