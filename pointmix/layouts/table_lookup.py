"""Position tables: where the slots of a plan read a square table that covers a whole grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.layouts.windows import size_tensor


@dataclass(frozen=True)
class TableLookup:
    """Indices into a square table of positions: one cell a slot, or four with bilinear interpolation weights.

    Args:
        index: (R, L, K) cells of the flat table; K is 1 or 4. R may be the rows of one set where all sets are alike.
        weight: (R, L, K) interpolation weights, None if K is 1.
        windows: number of windows along each side, if the rows are those of a grid of the table's size.
    """

    index: Int[Tensor, "R L K"]
    weight: Float[Tensor, "R L K"] | None
    windows: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        cell: Int[Tensor, "R L 2"],
        size: tuple[int, int] | Int[Tensor, "R 1 2"],
        table_size: int,
        dtype: torch.dtype,
        windows: tuple[int, int] | None = None,
    ) -> TableLookup:
        """The lookup of `cell` on grids of `size`; the corners of the table coincide with those of the grid.

        Args:
            windows: number along each side, if `cell` are all cells of a grid of `size`, window by window.
        """
        if isinstance(size, tuple):
            if size == (table_size, table_size):
                return cls((cell[..., :1] * table_size + cell[..., 1:]), None, windows)
            size = size_tensor(size, cell.device)
        elif not torch.compiler.is_exporting() and (size == table_size).all():
            return cls((cell[..., :1] * table_size + cell[..., 1:]), None)
        where = cell * (table_size - 1) / (size - 1).clamp(min=1).double()  # (R, L, 2)
        low = where.long().clamp(max=max(table_size - 2, 0))
        part, step = where - low, min(table_size - 1, 1)
        (r, c), (pr, pc) = low.unbind(-1), part.unbind(-1)
        index = [(r + i * step) * table_size + c + j * step for i in (0, 1) for j in (0, 1)]
        weight = [(pr if i else 1 - pr) * (pc if j else 1 - pc) for i in (0, 1) for j in (0, 1)]
        return cls(torch.stack(index, -1), torch.stack(weight, -1).to(dtype))

    def read(self, table: Float[Tensor, "E M T T"]) -> Float[Tensor, "R M E L"]:
        """The interpolated value of the table at each slot."""
        if self.windows is not None:  # in the order of the windows; a copy is faster than a read by index
            fh, fw = self.windows
            blocks = table.unflatten(3, (fw, -1)).unflatten(2, (fh, -1))  # (E, M, fh, h, fw, w)
            return blocks.permute(2, 4, 1, 0, 3, 5).flatten(4).flatten(0, 1).contiguous()
        flat = table.flatten(2).transpose(0, 1)  # (M, E, T^2)
        weights = [None] if self.weight is None else self.weight.unbind(-1)
        corners = zip(self.index.unbind(-1), weights, strict=True)
        values = (_corner(flat, *corner) for corner in corners)  # one at a time: all four would be most of the memory
        total = reduce(torch.add, values)
        return total.permute(2, 0, 1, 3).contiguous()  # it is added to every set


def _corner(
    flat: Float[Tensor, "M E TT"], index: Int[Tensor, "R L"], weight: Float[Tensor, "R L"] | None
) -> Float[Tensor, "M E R L"]:
    value = flat.index_select(2, index.flatten()).unflatten(2, index.shape)
    return value if weight is None else value * weight.to(value.dtype)
