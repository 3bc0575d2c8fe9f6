"""RoIAlign: the means of bilinear samples in the bins of boxes. The boxes get no gradient.

A box is divided into P x P bins, and each bin is sampled at a grid of points. Bilinear weights and the mean over a bin
are products of a row part and a column part, so that

    out[k, p, q] = sum over rows y and columns x of  row_weight[k, p, y] column_weight[k, q, x] map[y, x]

The cells of a bin with their weights are a bag of rows of the map, channels last, and `embedding_bag` sums them.

Source: He et al., "Mask R-CNN", ICCV 2017, section 3. Sampling and alignment are those of torchvision and mmcv; samples
beyond the map read its nearest cell. Torchvision's compiled operator, which is used where it is available, differs in
that: samples more than one cell beyond the map are zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pointmix.ops.precision import at_least_float32

ENTRIES = 2**22  # weights that are held at a time


def roi_align(
    x: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "K 4"],
    batch: Int[Tensor, "K"],
    bins: int,
    *,
    scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "K C P P"]:
    """Features of boxes, computed at least in float32 and returned in the dtype of `x`.

    Args:
        x: maps; channels last in memory is fastest.
        boxes: corners x1, y1, x2, y2, in pixels.
        batch: the map of each box.
        bins: P.
        scale: cells of the map in a pixel, such as 1/4 for a map of stride 4.
        sampling_ratio: samples along each side of a bin; 0 for as many as the bin has cells, rounded up, but not more
            than the map has.
        aligned: cell i of the map is centered at (i + 0.5) / scale pixels; false for at i / scale, and boxes are at
            least one cell wide and high, as in torchvision's Mask R-CNN.
    """
    wide = at_least_float32(x.dtype)
    boxes = boxes.detach().to(wide)
    if _compiled(x):
        rois = torch.cat([batch[:, None].to(wide), boxes], dim=1)
        op = torch.ops.torchvision.roi_align
        return op(x.to(wide), rois, scale, bins, bins, sampling_ratio, aligned).to(x.dtype)
    height, width = x.shape[2:]
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(wide)  # (B * H * W, C), a view if channels last
    options = bins, scale, sampling_ratio, aligned
    y, row_weight = _axis(boxes[:, 1], boxes[:, 3], height, *options)  # (K, P, Sy)
    z, column_weight = _axis(boxes[:, 0], boxes[:, 2], width, *options)  # (K, P, Sx)
    y = (y + (batch * height)[:, None, None]) * width
    step = max(1, ENTRIES // (bins**2 * y.shape[2] * z.shape[2]))
    pieces = zip(*(t.split(step) for t in (y, row_weight, z, column_weight)), strict=True)
    out = torch.cat([_sums(rows, *piece) for piece in pieces])
    return out.view(-1, bins, bins, x.shape[1]).permute(0, 3, 1, 2).to(x.dtype)


def crop_masks(
    masks: Shaped[Tensor, "M H W"],
    boxes: Float[Tensor, "K 4"],
    index: Int[Tensor, "K"],
    bins: int,
    *,
    aligned: bool = True,
) -> Float[Tensor, "K P P"]:
    """`roi_align` of masks of 0 and 1 with adaptive sampling, without gradients. Large boxes cost no more memory than
    the pixels in one of them."""
    boxes = boxes.detach()
    if _compiled(masks):
        rois = torch.cat([index[:, None].to(boxes.dtype), boxes], dim=1)
        return torch.ops.torchvision.roi_align(masks[:, None].to(boxes.dtype), rois, 1.0, bins, bins, 0, aligned)[:, 0]
    out = boxes.new_zeros(len(boxes), bins, bins)
    y, row_weight = _matrices(boxes[:, 1], boxes[:, 3], masks.shape[1], bins, aligned)
    z, column_weight = _matrices(boxes[:, 0], boxes[:, 2], masks.shape[2], bins, aligned)
    for k, mask in enumerate(index.tolist()):
        pixels = masks[mask, y[k], z[k]].to(boxes.dtype)
        out[k] = row_weight[k, :, y[k]] @ pixels @ column_weight[k, :, z[k]].t()
    return out


def _compiled(x: Tensor) -> bool:
    """Whether torchvision's operator is available. Its backward pass on a GPU is not deterministic."""
    if not hasattr(torch.ops.torchvision, "roi_align"):
        return False
    return not (x.is_cuda and torch.are_deterministic_algorithms_enabled())


def _axis(
    low: Float[Tensor, "K"],
    high: Float[Tensor, "K"],
    length: int,
    bins: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Int[Tensor, "K P S"], Float[Tensor, "K P S"]]:
    """Cells and weights of the bins along one side of boxes.

    Args:
        low, high: the side of each box, in pixels.
        length: cells of the map along it.
    """
    start = low * scale - 0.5 * aligned
    size = high * scale - 0.5 * aligned - start
    size = size if aligned else size.clamp(min=1)
    bin_size = size / bins
    adaptive = bin_size.ceil().clamp(max=length)
    number = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else adaptive  # samples in a bin
    sample = torch.arange(int(number.max().clamp(min=1)) if len(number) else 1, device=low.device)
    used = (sample < number[:, None])[:, None]  # (K, 1, I)
    place = torch.arange(bins, device=low.device) * bin_size[:, None]  # (K, P)
    at = (start[:, None] + place)[:, :, None] + ((sample + 0.5) * (bin_size / number)[:, None])[:, None]  # (K, P, I)
    at = torch.where(used, at, at[..., :1]).nan_to_num(0).clamp(0, length - 1)  # NaN: a box without area
    cell = at.long()
    part = at - cell
    share = used / number.clamp(min=1)[:, None, None]
    first = cell[..., :1]  # (K, P, 1)
    slots = int((cell - first).max()) + 2 if cell.numel() else 2
    weight = at.new_zeros(*at.shape[:2], slots)
    weight.scatter_add_(2, cell - first, (1 - part) * share).scatter_add_(2, cell - first + 1, part * share)
    index = (first + torch.arange(slots, device=low.device)).clamp(max=length - 1)
    return index, weight


def _sums(
    rows: Float[Tensor, "N C"],
    y: Int[Tensor, "K P Sy"],
    row_weight: Float[Tensor, "K P Sy"],
    z: Int[Tensor, "K P Sx"],
    column_weight: Float[Tensor, "K P Sx"],
) -> Float[Tensor, "KPP C"]:
    """Weighted sums of the cells of each bin.

    Args:
        y, z: the first cell of each row in `rows`, and the columns.
    """
    weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None]  # (K, P, P, Sy, Sx)
    read = weight != 0
    index = (y[:, :, None, :, None] + z[:, None, :, None])[read]
    offsets = F.pad(read.flatten(3).sum(3).flatten().cumsum(0), (1, 0))
    weight = weight[read]
    return F.embedding_bag(index, rows, offsets, per_sample_weights=weight, mode="sum", include_last_offset=True)


def _matrices(
    low: Float[Tensor, "K"], high: Float[Tensor, "K"], length: int, bins: int, aligned: bool
) -> tuple[list[slice], Float[Tensor, "K P N"]]:
    """The cells under each box along one side, and the weights of all cells."""
    index, weight = _axis(low, high, length, bins, 1.0, 0, aligned)
    matrix = weight.new_zeros(len(low), bins, length).scatter_add_(2, index, weight)
    first, last = index.flatten(1).amin(1).tolist(), index.flatten(1).amax(1).tolist()
    return [slice(i, j + 1) for i, j in zip(first, last, strict=True)], matrix
