"""SciPy's k-d tree: neighbors by its query, farthest points by the rounds that it makes cheap."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from pointmix.ops.fast.rounds import farthest
from pointmix.ops.fast.settle import settled
from pointmix.ops.ragged import spans


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    index, x = np.empty(int(out_ptr[-1]), np.int64), pos.numpy()
    for (begin, end, first, last), pick in zip(spans(ptr, out_ptr), start.tolist(), strict=True):
        index[first:last] = farthest(x[begin:end], last - first, pick) + begin
    return torch.from_numpy(index)


def knn(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    query_pos: Float[Tensor, "M D"],
    query_ptr: Int[Tensor, "B+1"],
    k: int,
) -> Int[Tensor, "M k"]:
    return settled(search, pos, ptr, query_pos, query_ptr, k)


def search(pos, ptr, query_pos, query_ptr, k):
    """As `settled` wants it."""
    x, queries = pos.numpy(), query_pos.numpy()
    index = np.empty((len(queries), k), np.int64)
    d = np.empty((len(queries), k))
    for begin, end, first, last in spans(ptr, query_ptr):
        if first < last:
            tree = cKDTree(x[begin:end])
            found = tree.query(queries[first:last], np.arange(1, k + 1), workers=torch.get_num_threads())
            d[first:last], index[first:last] = found
            index[first:last] += begin  # the number of points stands for none: clamped below
    np.minimum(index, len(x) - 1, out=index)
    return torch.from_numpy(index), torch.from_numpy(np.square(d, out=d))
