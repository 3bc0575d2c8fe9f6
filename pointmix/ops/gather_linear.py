"""A linear map of the features of several points: a convolution over any points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CPU_CHUNK, GPU_CHUNK = 2**20, 2**27  # gathered elements at a time; 4 MiB of float32 on a CPU
TRAINING = 8  # as many times that with gradients, whose backward pass touches all points for each part


def gather_linear_reference(
    feat: Float[Tensor, "N C"],
    index: Int[Tensor, "M K"],
    weight: Float[Tensor, "A KC"],
    bias: Float[Tensor, "A"] | None,
) -> Float[Tensor, "M A"]:
    """y_m = sum over k of W_k x_index[m, k], plus the bias; an index of N stands for a point of zeros.

    Args:
        weight: W_1 to W_K side by side.
    """
    return _mapped(F.pad(feat, (0, 0, 0, 1)), index, weight, bias)


def gather_linear(
    feat: Float[Tensor, "N C"],
    index: Int[Tensor, "M K"],
    weight: Float[Tensor, "A KC"],
    bias: Float[Tensor, "A"] | None,
) -> Float[Tensor, "M A"]:
    """`gather_linear_reference`, some rows at a time. The gathered features, K times as large as the input, are never
    held at once: the backward pass gathers them again."""
    padded = F.pad(feat, (0, 0, 0, 1))
    elements = CPU_CHUNK if feat.device.type == "cpu" else GPU_CHUNK
    gradients = torch.is_grad_enabled() and (feat.requires_grad or weight.requires_grad)
    parts = index.split(max(elements * (TRAINING if gradients else 1) // weight.shape[1], 1))
    if gradients:
        out = [
            checkpoint(_mapped, padded, part, weight, bias, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    else:
        out = [_mapped(padded, part, weight, bias) for part in parts]
    return out[0] if len(out) == 1 else torch.cat(out)


def _mapped(
    padded: Float[Tensor, "N1 C"],
    index: Int[Tensor, "M K"],
    weight: Float[Tensor, "A KC"],
    bias: Float[Tensor, "A"] | None,
) -> Float[Tensor, "M A"]:
    rows = F.embedding(index.flatten(), padded)  # unlike index_select, its backward pass runs on all cores
    return F.linear(rows.reshape(len(index), weight.shape[1]), weight, bias)
