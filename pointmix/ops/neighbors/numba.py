"""`knn` on the CPU by k-d trees that numba compiles.

torch's threads share the sets, or the queries of a single set. Processes may be forked, but not while another thread is
in the very first call, which compiles.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels import kdtree
from pointmix.ops.kernels.jit import as_array, call
from pointmix.ops.kernels.operators import operator
from pointmix.ops.kernels.threads import share
from pointmix.ops.ragged import set_bounds


def _knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B1"],
    k: int,
) -> Int[Tensor, "M k"]:
    x, queries = as_array(pos), as_array(query_pos)
    index = np.zeros((len(queries), k), np.int64)
    parts = torch.get_num_threads() if len(ptr) == 2 else 1
    own = x.ctypes.data == queries.ctypes.data  # the queries are the points: one tree serves both

    def search(bounds: tuple[int, ...]) -> None:
        begin, end, first, last = bounds
        points, asked, found = x[begin:end], queries[first:last], index[first:last]
        tree = call(kdtree, "build", points)
        # queries in the order of a tree's leaves, so that consecutive ones are close to one another
        order = (tree if own and (begin, end) == (first, last) else call(kdtree, "build", asked))[1].ravel()
        chunks = np.array_split(order[order != kdtree.NONE], parts)
        share(lambda chunk: call(kdtree, "nearest", points, tree, asked, chunk, k, found), chunks, len(asked))
        found += begin

    share(search, [b for b in set_bounds(ptr, query_ptr) if b[2] < b[3]], len(queries))
    return torch.from_numpy(index)


knn = operator(
    "numba_knn(Tensor pos, Tensor ptr, Tensor query_pos, Tensor query_ptr, SymInt k) -> Tensor",
    _knn,
    lambda pos, ptr, query_pos, query_ptr, k: ptr.new_empty(query_pos.shape[0], k),
)
