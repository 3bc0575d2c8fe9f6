"""fpsample's plain form: the same loop in C++, on one core.

Its bucket forms are faster on many points, but begin at another point than the one they are told to, so they give
other picks; `rounds` is what we take there.
"""

from __future__ import annotations

import fpsample
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.fast.picks import distinct
from pointmix.ops.ragged import spans

# Of equally far points some versions take the last, not the first: then they get the points from last to first.
LAST = fpsample.fps_sampling(np.array([[0], [1], [-1]], np.float32), 2, 0)[1] == 2


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    index, x = np.empty(int(out_ptr[-1]), np.int64), pos.numpy()
    for (begin, end, first, last), pick in zip(spans(ptr, out_ptr), start.tolist(), strict=True):
        if LAST:
            picks = fpsample.fps_sampling(x[begin:end][::-1], last - first, end - begin - 1 - pick)
            index[first:last] = end - 1 - picks.astype(np.int64)
        else:
            index[first:last] = fpsample.fps_sampling(x[begin:end], last - first, pick).astype(np.int64) + begin
    return distinct(torch.from_numpy(index), ptr, out_ptr)
