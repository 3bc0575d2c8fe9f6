"""torch-cluster: farthest points in C++ and CUDA."""

from __future__ import annotations

import torch_cluster
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.neighbors.torch_cluster import rescaled
from pointmix.ops.sampling.ties import start_first, without_repeats


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    order = start_first(ptr, start, len(pos))
    ratio = (out_ptr.diff() - 0.5) / ptr.diff()  # it rounds ratio * points up
    picks = torch_cluster.fps(rescaled(pos, pos)[0][order], ptr=ptr, ratio=ratio.float(), random_start=False)
    return without_repeats(order[picks], ptr, out_ptr)
