"""Position tables and patch embeddings of another size: interpolated as timm does when it loads its own weights."""

from __future__ import annotations

import warnings
from contextlib import suppress
from math import isqrt
from typing import Any

from torch import Tensor, nn

from pointmix.models.hcformer import resized_table

REFUSALS = (ArithmeticError, AssertionError, AttributeError, RuntimeError, ValueError)  # of timm, of other shapes


def fit_table(model: nn.Module, place: str, value: Tensor, own: Tensor) -> Tensor | None:
    """A tensor interpolated to the size of its place: pos_embed (1, tokens, C) of a vision transformer, whose prefix
    tokens stay, relative_position_bias_table (positions, heads) of Swin and BEiT, patch_embed.proj.weight (C, channels,
    rows, columns), and the bias tables of HCFormer.

    Args:
        place: the name in the network.
        own: the tensor there.

    Returns:
        None if it is no such tensor, or differs in more than its size.
    """
    from timm.layers import resample_patch_embed, resize_rel_pos_bias_table

    path, _, name = place.rpartition(".")
    owner: Any = model.get_submodule(path)
    if not (value.is_floating_point() and own.is_floating_point() and value.numel()) or value.ndim != own.ndim:
        return None
    with suppress(*REFUSALS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about timm's code
        if name == "pos_embed" and value.ndim == 3:
            return _positions(owner, value, own)
        if name == "relative_position_bias_table" and value.ndim == 2 and value.shape[1] == own.shape[1]:
            return resize_rel_pos_bias_table(value, owner.window_size, tuple(own.shape))
        if place.endswith("patch_embed.proj.weight") and value.ndim == 4 and value.shape[:2] == own.shape[:2]:
            return resample_patch_embed(value, list(own.shape[2:]))
    return resized_table(place, value, own)


def _positions(owner: Any, value: Tensor, own: Tensor) -> Tensor | None:
    """A table of positions on a square grid, for the grid of the network."""
    from timm.layers import resample_abs_pos_embed

    rows, columns = owner.patch_embed.grid_size
    prefix = own.shape[1] - rows * columns
    side = isqrt(max(value.shape[1] - prefix, 0))
    if prefix < 0 or not side or side**2 + prefix != value.shape[1] or value.shape[::2] != own.shape[::2]:
        return None
    return resample_abs_pos_embed(value, [rows, columns], [side, side], num_prefix_tokens=prefix)
