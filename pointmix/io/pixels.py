"""Pixels that are fit to be points: finite values, cells within a lattice."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.io.arrays import as_tensor
from pointmix.io.images import as_floats

LONGEST_SIDE = 1 << 24  # in single precision, neighbors on a longer one would have the same position


def check_finite(values: Float[Tensor, "*N C"], what: str, unit: str = "pixels") -> None:
    """Raise ValueError if a value is NaN or infinite."""
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).any(-1).sum())
        raise ValueError(
            f"{what} holds NaN or infinite values at {bad} of {len(values)} {unit}, expected finite numbers"
        )


def checked_pixels(
    values: Float[Tensor, "N C"],
    rows: Int[Tensor, "N"],
    cols: Int[Tensor, "N"],
    size: tuple[int, int],
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[Float[Tensor, "N C"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Values as floats and their cells as int64. Arguments and errors: `PointSet.from_pixels`."""
    values = as_tensor(values, "from_pixels: values")
    values = values[:, None] if values.ndim == 1 else values
    named = (("rows", rows), ("cols", cols))
    rows, cols = (as_tensor(index, f"from_pixels: {name}").to(values.device) for name, index in named)
    if values.ndim != 2 or rows.shape != (len(values),) or cols.shape != (len(values),):
        raise ValueError(
            "from_pixels: expected values (N, C), rows (N,) and cols (N,), got "
            f"{tuple(values.shape)}, {tuple(rows.shape)}, {tuple(cols.shape)}"
        )
    if len(values) == 0:
        raise ValueError("from_pixels: no pixel given")
    for name, index in (("rows", rows), ("cols", cols)):
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise ValueError(f"from_pixels: {name} must be integers, got {index.dtype}")
    rows, cols = rows.long(), cols.long()
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if not 1 <= min(height, width) <= max(height, width) <= LONGEST_SIDE:
        raise ValueError(f"from_pixels: size must be two whole numbers from 1 to {LONGEST_SIDE}, got {size!r}")
    outside = (rows < 0) | (rows >= height) | (cols < 0) | (cols >= width)
    if outside.any():
        i = int(outside.nonzero()[0])
        raise ValueError(f"from_pixels: pixel {i} at ({rows[i]}, {cols[i]}) lies outside the {height}x{width} size")
    if repeated := len(rows) - len(torch.unique(rows * width + cols)):
        raise ValueError(f"from_pixels: {repeated} pixels are given more than once")
    values = as_floats(values, mean=mean, std=std)
    check_finite(values, "from_pixels: values")
    return values, rows, cols
