"""Nearest neighbors in one small set by way of all distances at once.

A matrix product gives every |q - x|^2 - |q|^2 up to an error that is known. The smallest ones of some groups of points
bound the k-th distance of each query from above, so few points are left to be told apart by the distances of the plain
form, and all that this one would take are among them.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

BITS = 11  # of a point's index
MOST = 2**BITS  # points of a set for which this is faster than a tree
LEAST = 2**16  # distances from which on it is
GROUP = 8  # points of a group, at most
PIECE = 2**18  # numbers held at a time


def nearest(x: Float[Tensor, "N D"], queries: Float[Tensor, "M D"], k: int) -> Int[ndarray, "M k"] | None:
    """What `pointmix.ops.neighbors.knn_plain` finds, or None where a tree is the better way: of other than single
    precision, with few or many points, or where so many are about as near as the k-th that the product cannot tell."""
    total, dims = x.shape
    if x.dtype != torch.float32 or not 2 * k < total <= MOST or total * len(queries) < LEAST:
        return None
    y, q = x - (center := x.mean(0)), queries - center
    length, reach = y.square().sum(1), q.square().sum(1).max()
    info = torch.finfo(x.dtype)
    error = 4 * (dims + 8) * info.eps * float(length.max() + reach) + 64 * info.tiny  # some times the roundings
    if not error < info.max * info.eps:
        return None
    left = torch.cat([q, torch.ones_like(q[:, :1])], dim=1).numpy()  # (M, D + 1)
    right = torch.cat([-2 * y, length[:, None]], dim=1).t().contiguous().numpy()  # (D + 1, N)
    group = max(min(GROUP, total // (2 * k)), 1)
    groups = total // group
    axes, asked = x.t().contiguous().numpy(), queries.t().contiguous().numpy()
    index = np.empty((len(q), k), np.int64)
    step = max(PIECE // total, 1)
    product, below = np.empty((step, total), np.float32), np.empty((step, total), bool)
    for row in range(0, len(q), step):
        here = left[row : row + step]  # (m, D + 1)
        far = np.matmul(here, right, out=product[: len(here)])  # (m, N), in full precision whatever torch is set to
        least = far[:, : group * groups].reshape(len(far), group, groups).min(1)  # (m, groups)
        bound = np.partition(least, k - 1, axis=1)[:, k - 1 : k]
        flat = np.flatnonzero(np.less_equal(far, bound + 2 * error, out=below[: len(here)]))  # (F,)
        if len(flat) > (4 * k + 64) * len(far):
            return None
        owner, point = np.divmod(flat, total)
        d = np.square(axes[0, point] - asked[0, owner + row])  # rounded as the plain form does
        for a, b in zip(axes[1:], asked[1:], strict=True):
            d += np.square(a[point] - b[owner + row])
        count = np.bincount(owner, minlength=len(far))
        slot = np.arange(len(flat)) - np.repeat(np.cumsum(count) - count, count)
        # By distance (the bits of positive floats are in their order), and of equal ones the lower index first.
        key = np.full((len(far), count.max()), np.iinfo(np.int64).max)
        key[owner, slot] = (d.view(np.int32).astype(np.int64) << BITS) | point
        key.sort(axis=1)
        index[row : row + step] = key[:, :k] & (MOST - 1)
    return index
