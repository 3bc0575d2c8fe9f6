"""The input of a network as a PointSet in its precision."""

from __future__ import annotations

import torch
from torch import Tensor

from pointmix.layouts.grid import Grid
from pointmix.pointset import PointSet


def as_points(
    x: Tensor | PointSet,
    *,
    dtype: torch.dtype,
    in_chans: int,
    coord_dims: int | None,
    coord_mode: str = "inclusive",
    coords: bool = False,
) -> PointSet:
    """Images (B, C, H, W), clouds (B, N, D) or a PointSet as a PointSet in the precision of a network.

    Args:
        dtype: of the network's weights. Positions are cast as by `PointSet.in_type`.
        in_chans: feature channels that the network takes.
        coord_dims: number of coordinates of a position that it takes; None for any.
        coord_mode: coordinates of the pixels of an image batch, see `PointSet.from_image`.
        coords: append the coordinates to the features, for images only.

    Raises:
        ValueError: if the network does not take this shape, dtype, number of channels or of dimensions.
    """
    if isinstance(x, Tensor):
        if not x.is_floating_point():
            raise ValueError(f"the input is {x.dtype}, expected floats; PointSet.from_images takes bytes")
        if x.ndim == 4:
            channels, shape = x.shape[1], tuple(x.shape)
            if channels != in_chans:
                raise ValueError(_wrong_channels(channels, in_chans) + _looks_like(shape[1:], in_chans))
            x = PointSet.from_batch(x.to(dtype), coord_mode=coord_mode, coords=coords)
            return _with_dims(x, coord_dims)
        if x.ndim == 3 and in_chans > 0:
            raise ValueError(
                f"{_wrong_channels(0, in_chans)}: a tensor {tuple(x.shape)} is a batch of bare positions (B, N, D). "
                "One image becomes a batch with x[None]; clouds with features are point sets, see PointSet.from_points"
            )
        x = PointSet.from_batch(x)
    if x.feat.shape[1] != in_chans:
        channels = x.feat.shape[1]
        shape = (channels, *x.layout.size) if isinstance(x.layout, Grid) else ()
        raise ValueError(_wrong_channels(channels, in_chans) + _looks_like(shape, in_chans))
    return _with_dims(x, coord_dims).in_type(dtype)


def _with_dims(x: PointSet, coord_dims: int | None) -> PointSet:
    if coord_dims is not None and x.pos.shape[1] != coord_dims:
        raise ValueError(f"positions have {x.pos.shape[1]} dimensions, the model takes {coord_dims} (coord_dims)")
    return x


def _wrong_channels(channels: int, in_chans: int) -> str:
    return f"the input has {channels} channels, the model takes {in_chans}"


def _looks_like(shape: tuple[int, ...], in_chans: int) -> str:
    """A hint if the channels of an image seem to be on its last axis."""
    if len(shape) == 3 and shape[-1] == in_chans:
        return f"; {'x'.join(map(str, shape))} looks like H x W x C, expected C x H x W (permute the axes)"
    return ""
