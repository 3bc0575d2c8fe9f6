"""RGB-D images as point clouds."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from pointmix.io.fields import ImageLike
from pointmix.io.images import as_channels_last, as_mask, upright, wrong_size
from pointmix.io.tensors import ArrayLike, ChannelValues, as_tensor
from pointmix.io.validate import check_finite
from pointmix.layouts.grid import grid_coordinates
from pointmix.utils.ranges import POSITIVE

Intrinsics = ArrayLike
FAR = 100.0  # meters; half of an image beyond it is more likely in millimeters


def rgbd_points(
    rgb: ImageLike,
    depth: ImageLike,
    intrinsics: Intrinsics | None = None,
    mask: ImageLike | None = None,
    *,
    depth_scale: float = 1000.0,
    mean: ChannelValues | None = None,
    std: ChannelValues | None = None,
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N C"]]:
    """Positions and features of the pixels with a valid depth, in row-major order.

    Arguments and errors: `PointSet.from_rgbd`.
    """
    values = as_channels_last(rgb, mean=mean, std=std)  # (H, W, C)
    size = (values.shape[0], values.shape[1])
    z = as_meters(depth, depth_scale).to(values.device)  # (H, W)
    if tuple(z.shape) != size:
        raise ValueError(f"from_rgbd: depth {wrong_size(z.shape, size)}")
    valid = has_depth(z, mask)
    row, col = valid.nonzero().unbind(1)  # (N,)
    z, feat = z[valid], values[valid]
    check_finite(feat, "from_rgbd: the part of the image that has a depth")
    if intrinsics is None:
        plane = grid_coordinates(size, "inclusive", torch.float64, z.device).view(*size, 2)[valid]
        pos = torch.cat([plane, z[:, None]], dim=1)
    else:
        fx, fy, cx, cy, skew = _pinhole(intrinsics, size)
        y = (row - cy) / fy
        x = (col - cx - skew * y) / fx
        pos = torch.stack([x * z, y * z, z], dim=1)
    return pos.to(torch.promote_types(feat.dtype, torch.float32)), feat  # half precision is too coarse for meters


def as_meters(depth: ImageLike, depth_scale: float = 1000.0) -> Float[Tensor, "H W"]:
    """A depth image in meters, float64: integers are divided by `depth_scale`, floats are meters.

    A warning says so if floats are more likely millimeters.

    Raises:
        ValueError: on another shape or dtype, or a scale that is not positive.
    """
    POSITIVE.check("from_rgbd: ", depth_scale=depth_scale)  # units per meter
    if not isinstance(depth, Tensor):
        depth = np.asanyarray(upright(depth) if isinstance(depth, Image.Image) else depth)
        if depth.dtype.kind not in "uif":
            raise ValueError(f"from_rgbd: depth must be integers or floats, got {depth.dtype}")
        depth = as_tensor(depth, "from_rgbd: depth")
    if depth.is_complex() or depth.dtype == torch.bool:
        raise ValueError(f"from_rgbd: depth must be integers or floats, got {depth.dtype}")
    meters = depth.is_floating_point()
    depth = depth.double() / (1.0 if meters else depth_scale)
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[2]):  # one channel, first or last
        depth = depth.squeeze(0 if depth.shape[0] == 1 else 2)
    if depth.ndim != 2:
        raise ValueError(f"from_rgbd: depth must be (H, W), got {tuple(depth.shape)}")
    if meters and (depth > FAR).any() and depth[torch.isfinite(depth) & (depth > 0)].median() > FAR:
        warnings.warn(
            f"from_rgbd: the median depth is above {FAR:g} m; depth in floats is in meters, depth_scale is for "
            "integers; divide millimeters by 1000",
            stacklevel=2,
        )
    return depth


def has_depth(z: Float[Tensor, "H W"], mask: ImageLike | None = None) -> Bool[Tensor, "H W"]:
    """Pixels with a valid depth: finite, above zero, and not hidden by the mask.

    Raises:
        ValueError: if there is no such pixel, or the mask has another size.
    """
    valid = torch.isfinite(z) & (z > 0)
    if mask is not None:
        valid &= as_mask(mask, (z.shape[0], z.shape[1])).to(z.device)
    if not valid.any():
        where = "" if mask is None else " where the mask shows it"
        raise ValueError(f"from_rgbd: no pixel has a valid depth{where}, expected finite values above 0")
    return valid


def _pinhole(intrinsics: Intrinsics, size: tuple[int, int]) -> tuple[float, float, float, float, float]:
    """fx, fy, cx, cy and skew, in pixels."""
    try:
        given = as_tensor(intrinsics).double().cpu()
    except ValueError as e:
        raise ValueError(f"from_rgbd: intrinsics must be numbers: {e}") from e
    if given.shape == (4,):
        (fx, fy, cx, cy), skew, valid = given.tolist(), 0.0, True
    elif given.shape == (3, 3):
        (fx, skew, cx), (zero, fy, cy), last = given.tolist()
        valid = zero == 0 and last == [0, 0, 1]
    else:
        raise ValueError(f"from_rgbd: intrinsics must be (fx, fy, cx, cy) or 3x3, got shape {tuple(given.shape)}")
    if not (valid and torch.isfinite(given).all() and fx > 0 and fy > 0):
        raise ValueError(
            "from_rgbd: intrinsics must be finite, with positive focal lengths and, as a matrix, "
            f"[[fx, s, cx], [0, fy, cy], [0, 0, 1]], got {given.tolist()}"
        )
    if not (-0.5 <= cx <= size[1] - 0.5 and -0.5 <= cy <= size[0] - 0.5):
        raise ValueError(
            f"from_rgbd: the center of the intrinsics is at column {cx:g}, row {cy:g}, outside the image of {size[1]} "
            f"columns and {size[0]} rows; are they of another image size?"
        )
    return fx, fy, cx, cy, skew
