"""The integer work on cells of lattices, compiled by numba, as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from pointmix.ops.cells import fake_window_rows, numba_kernels
from pointmix.ops.kernels.jit import as_array, call
from pointmix.ops.kernels.operators import Function, dynamic_size, operator


def _tensors(name: str) -> Function:
    """A function of `numba_kernels` as a function of tensors."""

    def function(*arguments: Tensor | int) -> Tensor | tuple[Tensor, ...]:
        found = call(numba_kernels, name, *(as_array(a) if isinstance(a, Tensor) else a for a in arguments))
        return tuple(map(torch.from_numpy, found)) if isinstance(found, tuple) else torch.from_numpy(found)

    return function


def _fake_coarse_cells(cell: Tensor, ptr: Tensor, size: Tensor, stride: int, whole: bool) -> tuple[Tensor, ...]:
    cells = dynamic_size()
    return tuple(ptr.new_empty(shape) for shape in ((cells, 2), ptr.shape, (cells,), cell.shape[:1]))


coarse_cells = operator(
    "numba_coarse_cells(Tensor cell, Tensor ptr, Tensor size, SymInt stride, SymInt whole) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _tensors("coarse_cells"),
    _fake_coarse_cells,
)
adopted = operator(
    "numba_adopted(Tensor cell, Tensor ptr, Tensor size, SymInt stride, Tensor new, Tensor new_ptr, Tensor count, "
    "Tensor parent) -> (Tensor, Tensor)",
    _tensors("adopted"),
    lambda cell, ptr, size, stride, new, new_ptr, count, parent: (
        count.new_empty(count.shape),
        parent.new_empty(parent.shape),
    ),
)
kernel_cells = operator(
    "numba_kernel_cells(Tensor cell, Tensor ptr, Tensor size, Tensor new, Tensor new_ptr, SymInt stride, "
    "SymInt kernel, SymInt padding) -> Tensor",
    _tensors("kernel_cells"),
    lambda cell, ptr, size, new, new_ptr, stride, kernel, padding: cell.new_empty(new.shape[0], kernel * kernel),
)
kernel_slots = operator(
    "numba_kernel_slots(Tensor cell, Tensor new, Tensor parent, SymInt kernel) -> Tensor",
    _tensors("kernel_slots"),
    lambda cell, new, parent, kernel: parent.new_empty(parent.shape),
)
window_order = operator(
    "numba_window_order(Tensor cell, Tensor ptr, Tensor size, SymInt windows_per_side, SymInt centers_per_side) "
    "-> (Tensor, Tensor, Tensor)",
    _tensors("window_order"),
    lambda cell, ptr, size, windows_per_side, centers_per_side: (
        cell.new_empty(cell.shape[0]),
        cell.new_empty(dynamic_size()),
        cell.new_empty(cell.shape[0], centers_per_side * centers_per_side, dtype=torch.bool),
    ),
)
window_rows = operator(
    "numba_window_rows(Tensor counts, Tensor members, bool distinct, Tensor like) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _tensors("window_rows"),
    fake_window_rows,
)
