"""SciPy's k-d tree: neighbors by its query, but in small sets, farthest points by the rounds that it makes cheap."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from pointmix.ops.fast.dense import nearest
from pointmix.ops.fast.rounds import farthest
from pointmix.ops.fast.settle import settled
from pointmix.ops.ragged import spans

MANY = 2**15
LEAF = 24  # points of a leaf; of 10 to 32 the fastest for some ten neighbors


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    index, x = np.empty(int(out_ptr[-1]), np.int64), pos.numpy()
    for (begin, end, first, last), pick in zip(spans(ptr, out_ptr), start.tolist(), strict=True):
        index[first:last] = farthest(x[begin:end], last - first, pick, torch.get_num_threads()) + begin
    return torch.from_numpy(index)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    index, open_ = torch.empty(len(query_pos), k, dtype=torch.int64), torch.ones(len(query_pos), dtype=torch.bool)
    for begin, end, first, last in spans(ptr, query_ptr):
        found = nearest(pos[begin:end], query_pos[first:last], k) if first < last else None
        if found is not None:
            index[first:last], open_[first:last] = torch.from_numpy(found).add_(begin), False
    rows = open_.nonzero().squeeze(1)
    if len(rows) == len(query_pos):
        return settled(search, pos, ptr, query_pos, query_ptr, k)
    if len(rows):
        index[rows] = settled(search, pos, ptr, query_pos[rows], torch.searchsorted(rows, query_ptr), k)
    return index


def search(pos, ptr, query_pos, query_ptr, k):
    """As `settled` wants it."""
    x, queries = pos.numpy(), query_pos.numpy()
    index = np.empty((len(queries), k), np.int64)
    d = np.empty((len(queries), k))
    for begin, end, first, last in spans(ptr, query_ptr):
        if first < last:
            tree, asked, rows = cKDTree(x[begin:end], LEAF), queries[first:last], slice(first, last)
            if len(asked) > MANY:  # so that one query finds in the processor's cache what the last one needed
                order = cKDTree(asked, 64).indices
                asked, rows = asked[order], first + order
            found = tree.query(asked, np.arange(1, k + 1), workers=torch.get_num_threads())
            d[rows], index[rows] = np.square(found[0], out=found[0]), np.add(found[1], begin, out=found[1])
    if int(ptr.diff().min()) < k:
        np.minimum(index, len(x) - 1, out=index)  # the number of points stands for none
    return torch.from_numpy(index), torch.from_numpy(d)
