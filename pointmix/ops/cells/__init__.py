"""Integer work on cells of lattices. The reference forms are `pointmix.layouts.cells` and `pointmix.layouts.plan`."""

from __future__ import annotations

import torch
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, Implementation, register
from pointmix.ops.kernels.operators import dynamic_size

for _op in ("adopted", "coarse_cells", "kernel_cells", "kernel_slots", "window_order", "window_rows"):
    register(
        _op,
        Implementation(
            NUMBA, f"pointmix.ops.cells.numba:{_op}", default=("cpu",), devices=("cpu",), dtypes=(torch.int64,)
        ),
    )


def fake_window_rows(counts: Tensor, members: Tensor, distinct: bool, like: Tensor) -> tuple[Tensor, ...]:
    """Shapes and dtypes of the rows of windows, for operators."""
    points, centers = members.shape
    rows, length, windows = dynamic_size(), dynamic_size(), counts.shape[0]
    return (
        counts.new_empty(rows, length),
        members.new_empty(rows, length),
        counts.new_empty(points),
        like.new_empty(rows, centers, length),
        counts.new_empty(rows),
        counts.new_empty(points),
        members.new_empty(windows, centers),
    )
