"""Arrays and lists as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class SupportsArray(Protocol):
    """Anything that NumPy can convert."""

    def __array__(self) -> np.ndarray: ...


ArrayLike = Tensor | np.ndarray | Sequence[Any] | SupportsArray
ChannelValues = Sequence[float] | np.ndarray | Tensor  # one for each channel, or one for all

LONGEST = {"g": np.float64, "G": np.complex128}  # torch has no extended precision


def as_tensor(values: ArrayLike | float, what: str = "", *, double: bool = False) -> Tensor:
    """Numbers in an array or a list as a tensor; a tensor unchanged.

    Arrays that a tensor cannot share memory with are copied: read-only ones, and those with negative strides or another
    byte order.

    Args:
        what: the name of the values in messages.
        double: floats in a list become float64, as in NumPy, instead of torch's default precision.

    Raises:
        ValueError: if the values are not numbers, are ragged, or some are masked.
    """
    what = what and f"{what}: "
    if isinstance(values, Tensor):
        return values
    if np.ma.is_masked(values):
        raise ValueError(f"{what}expected an array of plain numbers, got a masked one; fill the masked values first")
    try:
        if not (double or hasattr(values, "__array__")):
            return torch.as_tensor(values)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as e:
        raise ValueError(f"{what}expected numbers in a regular shape: {str(e).splitlines()[0]}") from e
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what}expected numbers, got an array of {array.dtype}")
    dtype = LONGEST.get(array.dtype.char, array.dtype.newbyteorder("="))
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def as_index(index: ArrayLike, size: int) -> Int[Tensor, " K"]:
    """Distinct indices of `size` points, from indices or from a boolean mask (size,).

    Raises:
        ValueError: if an index is out of range or occurs twice, or the mask has another shape.
    """
    found = as_tensor(index, "subset: index")
    if found.dtype == torch.bool:
        if found.shape != (size,):
            raise ValueError(f"subset: mask must be ({size},), got {tuple(found.shape)}")
        found = found.nonzero().squeeze(1)
    known = len(found) == 0 or 0 <= found.min() <= found.max() < size
    if not known or len(torch.unique(found)) != len(found):
        raise ValueError(f"subset: index must name different points of 0 to {size - 1}")
    return found
