"""The first layer of a network from one of other input channels, such as colors where there was gray."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class InputLayer(NamedTuple):
    """The weight that meets the input: its name, and how many of its last channels are coordinates."""

    name: str
    coords: int


def input_layer(model: nn.Module) -> InputLayer | None:
    """The first layer of a network, or of its backbone; None if it is not known."""
    backbone = getattr(model, "backbone", None)
    owner: Any = backbone if isinstance(backbone, nn.Module) else model
    prefix = "" if owner is model else "backbone."
    if hasattr(owner, "coord_dims") and hasattr(owner, "coords"):
        return InputLayer(f"{prefix}stages.0.reducer.weight", owner.coord_dims if owner.coords else 0)
    first = getattr(owner, "pretrained_cfg", {}).get("first_conv")
    return InputLayer(f"{prefix}{first}.weight", 0) if isinstance(first, str) else None


def fit_channels(value: Tensor, place: Tensor, *, coords: int, in_chans: int | None) -> Tensor | None:
    """The weight of a first layer for other feature channels, as timm's `adapt_input_conv`: summed for one, else
    repeated in turn and scaled, so that equal channels give what they gave. Channels of coordinates are kept.

    Args:
        value, place: (D, features + coordinates, ...) of the file and of the network.
        coords: coordinates of the network.
        in_chans: features of the file, if it says so; else it has as many coordinates as the network.

    Returns:
        None if more than the number of features differs, or one has no features.
    """
    if value.ndim != place.ndim or value.ndim < 2 or not value.is_floating_point():
        return None
    if value.shape[0] != place.shape[0] or value.shape[2:] != place.shape[2:]:
        return None
    theirs, ours = value.shape[1] - coords, place.shape[1] - coords
    if theirs < 1 or ours < 1 or (in_chans is not None and in_chans != theirs):
        return None
    features, rest = value[:, :theirs], value[:, theirs:]
    if ours == 1:
        return torch.cat([features.sum(1, keepdim=True), rest], dim=1)
    return torch.cat([features[:, torch.arange(ours) % theirs] * (theirs / ours), rest], dim=1)
