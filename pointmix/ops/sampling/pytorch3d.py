"""PyTorch3D: farthest points in C++ and CUDA, on padded batches."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from pytorch3d.ops import sample_farthest_points
from torch import Tensor

from pointmix.ops.ragged import to_dense_batch
from pointmix.ops.sampling.ties import start_first, without_repeats


def farthest_points(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], out_ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    order, count = start_first(ptr, start, len(pos)), out_ptr.diff()
    _, picks = sample_farthest_points(
        to_dense_batch(pos[order], ptr)[0], lengths=ptr.diff(), K=count
    )  # (B, most picks)
    valid = torch.arange(picks.shape[1], device=pos.device) < count[:, None]
    return without_repeats(order[(picks + ptr[:-1, None])[valid]], ptr, out_ptr)
