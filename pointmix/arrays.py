"""Arrays, lists and tensors as tensors, whatever their strides, byte order or flags."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is, or numbers in an array or a list as one.

    An array that a tensor cannot share is copied: one that is read-only, has negative strides or another byte order.

    Raises:
        ValueError: if these are no numbers, have no regular shape, or some of them are masked.
    """
    if isinstance(values, Tensor):
        return values
    if np.ma.is_masked(values):
        raise ValueError("expected an array of plain numbers, got a masked one; fill what is masked first")
    try:
        if not hasattr(values, "__array__"):
            return torch.as_tensor(values)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as e:
        raise ValueError(f"expected numbers in a regular shape: {str(e).splitlines()[0]}") from e
    if array.dtype.kind not in "biufc":
        raise ValueError(f"expected numbers, got an array of {array.dtype}")
    dtype = np.dtype(np.float64) if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))
