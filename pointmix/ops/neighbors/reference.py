"""The reference form of `knn`."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.ragged import set_bounds, squared_distance

CHUNK = 2**22  # distances held at a time


def knn_reference(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """`knn` by sorting the distances to all points of the set. Slots beyond those hold no meaningful index."""
    index = ptr.new_zeros(len(query_pos), k)
    for begin, end, first, last in set_bounds(ptr, query_ptr):
        x = pos[begin:end].t()[:, None]  # (D, 1, n)
        step = max(CHUNK // (end - begin), 1)
        for row in range(first, last, step):
            rows = slice(row, min(row + step, last))
            d = squared_distance(query_pos[rows].t()[:, :, None], x)  # (m, n)
            near = d.sort(dim=1, stable=True).indices[:, :k]
            index[rows, : near.shape[1]] = near + begin
    return index
