"""The first layer of a network from one of other input channels, such as colors where there was gray."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IMAGE_DIMS = 2  # coordinates of a pixel


class InputLayer(NamedTuple):
    """The weight that meets the input: its name, and how many of its last channels are coordinates."""

    name: str
    coords: int

    def meets_others(self, value: Tensor, in_chans: int | None) -> bool:
        """Whether the weight of a file with this many features, if it states them, meets other coordinates."""
        return in_chans is not None and in_chans >= 0 and value.ndim > 1 and value.shape[1] - in_chans != self.coords


def input_layer(model: nn.Module) -> InputLayer | None:
    """The first layer of a network, or of its backbone; None if it is not known."""
    backbone = getattr(model, "backbone", None)
    owner: Any = backbone if isinstance(backbone, nn.Module) else model
    prefix = "" if owner is model else "backbone."
    coords = owner.coord_dims if hasattr(owner, "coord_dims") and getattr(owner, "coords", True) else 0
    first = getattr(owner, "pretrained_cfg", {}).get("first_conv")
    if hasattr(owner, "coords"):  # clusters points
        first = "stages.0.reducer"
    return InputLayer(f"{prefix}{first}.weight", coords) if isinstance(first, str) else None


def fit_channels(value: Tensor, place: Tensor, *, coords: int, in_chans: int | None) -> Tensor | None:
    """The weight of a first layer for other input channels.

    Feature channels become others as timm's `adapt_input_conv` does it: summed for one, else repeated in turn and
    scaled, so that equal channels give what they gave. Coordinates stay if there are as many. Channels that the file
    does not have are as initialized: features where it has bare positions, and coordinates of other dimensions, as rows
    and columns of an image are not x, y, z.

    Args:
        value, place: (D, features + coordinates, ...) of the file and of the network.
        coords: coordinates of the network.
        in_chans: features of the file; -1 if a run does not state them, None for files of others: convolutions of
            images, if the network takes coordinates, else as many coordinates as the network's.

    Returns:
        The value itself where nothing differs; None if more than the number of channels does, or no channel is left.
    """
    if value.ndim > place.ndim == 2 and value.shape[2:].numel() == 1:  # a 1x1 convolution
        value = value.flatten(1)
    if value.ndim != place.ndim or value.ndim < 2 or not value.is_floating_point():
        return None
    if value.shape[0] != place.shape[0] or value.shape[2:] != place.shape[2:]:
        return None
    if in_chans == -1:
        return value if value.shape == place.shape else None
    if in_chans is None:
        in_chans = value.shape[1] - (min(coords, IMAGE_DIMS) if value.ndim == 4 else coords)
    theirs, ours = in_chans, place.shape[1] - coords
    if not 0 <= theirs <= value.shape[1] or ours < 0:
        return None
    same_coords = value.shape[1] - theirs == coords
    if theirs == ours and same_coords:
        return value
    if not (same_coords and coords) and not (theirs and ours):
        return None
    features, rest = value[:, :theirs], value[:, theirs:] if same_coords else place[:, ours:]
    if not theirs:
        features = place[:, :ours]
    elif ours == 1:
        features = features.sum(1, keepdim=True)
    elif ours != theirs:
        features = features[:, torch.arange(ours) % theirs] * (theirs / max(ours, 1))
    return torch.cat([features, rest], dim=1)
