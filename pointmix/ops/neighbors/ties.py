"""Makes the neighbors that other libraries find agree with the reference form on points that are equally near.

Where a library's distances are so far apart that rounding cannot matter, its order is taken. Elsewhere its neighbors
are sorted by the distances of the reference form. Where a point left out may be as near as the last neighbor, more
neighbors are searched for, and the queries still undecided are left to the reference form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.neighbors.reference import knn_reference
from pointmix.ops.ragged import squared_distance

# (pos, ptr, query_pos, query_ptr, k) to the indices (M, k) of the k nearest by the library's own rounding, and their
# squared distances, ascending, infinite where a set has no more points.
Search = Callable[..., tuple[Int[Tensor, "M k"], Float[Tensor, "M k"]]]
FEW = 2**18  # up to this many distances, the reference form is faster than another search


def resolve_ties(
    search: Search,
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    """The neighbors that `knn_reference` finds, by means of `search`."""
    info = torch.finfo(pos.dtype)
    margin, least = 1 + 2 * (pos.shape[1] + 4) * info.eps, 64 * info.tiny  # D + 2 roundings of eps / 2 on either side
    near, d = search(pos, ptr, query_pos, query_ptr, k + 1)
    index = near[:, :k]
    # where points are absent this is infinity minus infinity, NaN, so false
    rows = (d[:, :-1] * margin - d[:, 1:] >= -least).any(1).nonzero().squeeze(1)
    if len(rows) == 0:
        return index
    near, d, largest = near[rows], d[rows], int(ptr.diff().max())
    for width in (k + 16, 4 * k + 64, None):
        absent = d.isinf()
        near = near.masked_fill(absent, len(pos)).sort(dim=1).values  # by index: the stable sort below keeps this order
        here = squared_distance(query_pos[rows].t()[:, :, None], pos.t()[:, near.clamp(max=len(pos) - 1)])  # (R, width)
        here, order = here.masked_fill(near == len(pos), torch.inf).sort(dim=1, stable=True)
        all_there = absent[:, -1]  # every point of the set was found
        sure = all_there | (here[:, k - 1] * margin + least < d[:, -1])  # all others are farther than the last
        index[rows[sure]] = near.gather(1, order)[sure, :k].clamp(max=len(pos) - 1)
        rows = rows[~sure]
        if len(rows) * largest <= FEW:
            break
        if width is not None:
            near, d = search(pos, ptr, query_pos[rows], torch.searchsorted(rows, query_ptr), width)
    if len(rows):
        index[rows] = knn_reference(pos, ptr, query_pos[rows], torch.searchsorted(rows, query_ptr), k)
    return index
