"""Farthest points on the CPU by k-d trees that numba compiles; torch's threads share the sets."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.kernels import kdtree
from pointmix.ops.kernels.jit import as_array, call
from pointmix.ops.kernels.operators import dynamic_size, operator
from pointmix.ops.kernels.threads import share
from pointmix.ops.ragged import set_bounds


def _farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    x, index = as_array(pos), np.empty(int(out_ptr[-1]), np.int64)

    def pick(task: tuple[tuple[int, ...], int]) -> None:
        (begin, end, first, last), start = task
        picks, d = call(kdtree, "farthest", x[begin:end], last - first, start)
        order = np.lexsort((picks[1:], -d[1:])) + 1  # the first pick stays in its place
        index[first] = picks[0] + begin
        index[first + 1 : last] = picks[order[: last - first - 1]] + begin

    share(pick, list(zip(set_bounds(ptr, out_ptr), start.tolist(), strict=True)), len(x))
    return torch.from_numpy(index)


farthest_points = operator(
    "numba_farthest_points(Tensor pos, Tensor ptr, Tensor out_ptr, Tensor start) -> Tensor",
    _farthest_points,
    lambda pos, ptr, out_ptr, start: ptr.new_empty(dynamic_size()),
)
