"""Arrays, lists and tensors as tensors, whatever their strides, byte order or flags."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

LONG = {"g": np.float64, "G": np.complex128}  # what tensors have in place of NumPy's longest types


def as_tensor(values: Any, what: str = "", *, double: bool = False) -> Tensor:
    """A tensor as it is, or numbers in an array or a list as one.

    An array that a tensor cannot share is copied: one that is read-only, has negative strides or another byte order.

    Args:
        what: these are, for messages.
        double: floats in a list become float64, as NumPy has them, instead of torch's default precision.

    Raises:
        ValueError: if these are no numbers, have no regular shape, or some of them are masked.
    """
    what = what and f"{what}: "
    if isinstance(values, Tensor):
        return values
    if np.ma.is_masked(values):
        raise ValueError(f"{what}expected an array of plain numbers, got a masked one; fill what is masked first")
    try:
        if not (double or hasattr(values, "__array__")):
            return torch.as_tensor(values)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as e:
        raise ValueError(f"{what}expected numbers in a regular shape: {str(e).splitlines()[0]}") from e
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what}expected numbers, got an array of {array.dtype}")
    dtype = LONG.get(array.dtype.char, array.dtype.newbyteorder("="))
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))
