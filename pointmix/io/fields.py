"""Images, pixels and clouds as the fields of a `PointSet`: positions, features, row offsets and layout."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from pointmix.io.images import as_channels_last, as_floats, as_mask
from pointmix.io.tensors import ArrayLike, ChannelValues, as_tensor
from pointmix.io.validate import check_finite, check_upright
from pointmix.layouts.cloud import Cloud
from pointmix.layouts.grid import Grid, axis_coordinates, grid_coordinates, positions, starts
from pointmix.layouts.sparse import SparseGrid

MAX_SIDE = 1 << 24  # on a longer lattice, neighbors would have the same position in single precision

ImageLike = ArrayLike | Image.Image
Fields = tuple[Float[Tensor, "N D"], Float[Tensor, "N C"], Int[Tensor, "B1"], Grid | SparseGrid | Cloud]


def image_fields(
    image: ImageLike,
    mask: ImageLike | None,
    *,
    mean: ChannelValues | None,
    std: ChannelValues | None,
    coord_mode: str,
) -> Fields:
    """One image, a point per visible pixel. Arguments and errors: `PointSet.from_image`."""
    values = as_channels_last(image, mean=mean, std=std)  # (H, W, C)
    size = (values.shape[0], values.shape[1])
    pos = grid_coordinates(size, coord_mode, values.dtype, values.device)  # (H * W, 2)
    feat = values.reshape(-1, values.shape[-1])
    if mask is None:
        check_finite(feat, "from_image: image")
        return pos, feat, torch.tensor([0, len(feat)], device=feat.device), Grid(size)
    visible = as_mask(mask, size).to(feat.device)  # (H, W)
    index = visible.flatten().nonzero().squeeze(1)
    check_finite(feat[index], "from_image: the visible part of the image")
    cell = torch.stack([index // size[1], index % size[1]], dim=1)
    layout = SparseGrid(cell, torch.tensor([size], device=feat.device))
    return pos[index], feat[index], torch.tensor([0, len(index)], device=feat.device), layout


def images_fields(
    images: Float[Tensor, "B C H W"], *, mean: ChannelValues | None, std: ChannelValues | None, coord_mode: str
) -> Fields:
    """Images of one size as a grid. Arguments and errors: `PointSet.from_images`."""
    pos, feat, ptr, layout = batch_fields(images, coord_mode=coord_mode, coords=False)
    feat = as_floats(feat, mean=mean, std=std)
    check_finite(feat, "from_images: images")
    return pos, feat, ptr, layout


def batch_fields(batch: Float[Tensor, "B ..."], *, coord_mode: str, coords: bool) -> Fields:
    """Images (B, C, H, W) or clouds (B, N, D). Arguments and errors: `PointSet.from_batch`."""
    if batch.ndim == 3 and min(batch.shape) > 0:
        pos = batch.flatten(0, 1)
        ptr = torch.arange(len(batch) + 1, device=batch.device) * batch.shape[1]
        return pos, pos.clone() if coords else pos.new_zeros(len(pos), 0), ptr, Cloud()
    if batch.ndim != 4:
        raise ValueError(f"expected images (B, C, H, W) or clouds (B, N, D), got {tuple(batch.shape)}")
    sets, layout = batch.shape[0], Grid((batch.shape[2], batch.shape[3]))
    pos = positions(sets, layout.size, coord_mode, like=batch)  # (N, 2)
    feat = batch.permute(0, 2, 3, 1)  # (B, H, W, C)
    feat = torch.cat([feat, pos.view(sets, *layout.size, 2)], dim=-1) if coords else feat
    return pos, feat.flatten(0, 2), starts(sets, layout, like=batch), layout


def cloud_fields(xyz: ArrayLike, feat: ArrayLike | None, batch: ArrayLike | None = None) -> Fields:
    """One cloud, or several with a batch vector. Arguments and errors: `PointSet.from_points`."""
    usual = xyz.dtype if isinstance(xyz, Tensor) else torch.get_default_dtype()
    xyz = as_tensor(xyz, "from_points: xyz", double=True)
    check_upright(xyz.shape)
    if feat is None:
        feat = torch.zeros(len(xyz) if xyz.ndim else 0, 0, dtype=usual, device=xyz.device)
    values = as_tensor(feat, "from_points: feat")
    if not values.is_floating_point() and values.dtype not in (torch.bool, torch.uint8, torch.uint16):
        raise ValueError(
            f"from_points: pos and feat must be floating point, got {xyz.dtype}, {values.dtype}; only bytes and "
            "unsigned 16-bit integers have a known range and become [0, 1]"
        )
    feat = as_floats(values) if isinstance(feat, Tensor) else as_floats(values).to(usual)
    feat = feat[:, None] if feat.ndim == 1 else feat
    if xyz.ndim == 2 and feat.ndim == 2 and feat.shape[1] == len(xyz) != len(feat):
        raise ValueError(f"from_points: features are {tuple(feat.shape)}, expected (N, C): they are transposed")
    if xyz.ndim != 2 or feat.ndim != 2 or len(xyz) != len(feat) or min(xyz.shape) < 1:
        raise ValueError(
            "from_points: expected positions (N, D) and features (N, C) of at least one point, got "
            f"{tuple(xyz.shape)} and {tuple(feat.shape)}"
        )
    check_finite(xyz, "from_points: xyz", "points")
    check_finite(feat, "from_points: feat", "points")
    ptr = torch.tensor([0, len(xyz)], device=xyz.device) if batch is None else _batch_ptr(batch, len(xyz), xyz.device)
    return xyz, feat, ptr, Cloud()


def _batch_ptr(batch: ArrayLike, points: int, device: torch.device) -> Int[Tensor, "B1"]:
    """Row offsets of the sets in a batch vector, the set of each point."""
    found = as_tensor(batch, "from_points: batch")
    if found.shape != (points,) or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        what = f"{tuple(found.shape)} {found.dtype}"
        raise ValueError(f"from_points: batch is {what}, expected ({points},) whole numbers")
    found = found.long()
    if found[0] != 0 or not ((found.diff() == 0) | (found.diff() == 1)).all():
        raise ValueError(
            "from_points: batch must begin at 0 and rise by 0 or 1 from point to point: sets in order, none empty"
        )
    return torch.nn.functional.pad(found.bincount().cumsum(0), (1, 0)).to(device)


def pixel_fields(
    values: ArrayLike,
    rows: ArrayLike,
    cols: ArrayLike,
    size: Sequence[int],
    *,
    mean: ChannelValues | None,
    std: ChannelValues | None,
    coord_mode: str,
) -> Fields:
    """Scattered pixels. Arguments and errors: `PointSet.from_pixels`."""
    values = as_tensor(values, "from_pixels: values")
    values = values[:, None] if values.ndim == 1 else values
    named = (("rows", rows), ("cols", cols))
    rows, cols = (as_tensor(index, f"from_pixels: {name}").to(values.device) for name, index in named)
    if values.ndim != 2 or rows.shape != (len(values),) or cols.shape != (len(values),):
        raise ValueError(
            "from_pixels: expected values (N, C), rows (N,) and cols (N,), got "
            f"{tuple(values.shape)}, {tuple(rows.shape)}, {tuple(cols.shape)}"
        )
    if len(values) == 0:
        raise ValueError("from_pixels: no pixel given")
    for name, index in (("rows", rows), ("cols", cols)):
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise ValueError(f"from_pixels: {name} must be integers, got {index.dtype}")
    rows, cols = rows.long(), cols.long()
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise ValueError(f"from_pixels: size must be two whole numbers from 1 to {MAX_SIDE}, got {size!r}")
    outside = (rows < 0) | (rows >= height) | (cols < 0) | (cols >= width)
    if outside.any():
        i = int(outside.nonzero()[0])
        raise ValueError(f"from_pixels: pixel {i} at ({rows[i]}, {cols[i]}) lies outside the {height}x{width} size")
    if repeated := len(rows) - len(torch.unique(rows * width + cols)):
        raise ValueError(f"from_pixels: {repeated} pixels are given more than once")
    values = as_floats(values, mean=mean, std=std)
    check_finite(values, "from_pixels: values")
    axes = [axis_coordinates(i, side, coord_mode) for i, side in zip((rows, cols), size, strict=True)]
    pos = torch.stack(axes, dim=1).to(values.dtype)
    layout = SparseGrid(torch.stack([rows, cols], dim=1), torch.tensor([size], device=values.device))
    return pos, values, torch.tensor([0, len(values)], device=values.device), layout
