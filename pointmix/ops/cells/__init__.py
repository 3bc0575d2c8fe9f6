"""Integer work on cells of lattices. The reference forms are `pointmix.layouts.cells` and `pointmix.layouts.plan`."""

from __future__ import annotations

import torch

from pointmix.ops.dispatch import NUMBA, Implementation, register

for _op in ("adopted", "coarse_cells", "kernel_cells", "window_order", "window_rows"):
    register(
        _op,
        Implementation(
            NUMBA, f"pointmix.ops.cells.numba:{_op}", default=("cpu",), devices=("cpu",), dtypes=(torch.int64,)
        ),
    )
