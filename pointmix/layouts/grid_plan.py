"""Plans of full grids. They depend on sizes alone, not on where the points are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.layouts.plan import IndexPlan, PackedPlan, UniformPlan
from pointmix.layouts.table_lookup import TableLookup
from pointmix.layouts.upper import UniformUpperLevel, reciprocal
from pointmix.layouts.windows import (
    center_members,
    first_occurrence,
    member_signature,
    reflect_padding,
    size_tensor,
    window_bounds,
)


def plan_unpadded(
    batch: int,
    size: tuple[int, int],
    windows_per_side: int,
    centers_per_side: int,
    dtype: torch.dtype,
    device: torch.device,
) -> UniformPlan | IndexPlan:
    """The plan of `batch` sets with windows that differ by a row or column at most; see `Grid.plan`."""
    height, width = size
    fh, fw = min(windows_per_side, height), min(windows_per_side, width)
    if height % fh == 0 and width % fw == 0 and centers_per_side <= min(height // fh, width // fw):
        pool_weight = _pool_weight(height // fh, width // fw, centers_per_side, dtype, device)
        windows = None if torch.compiler.is_exporting() else _packed(batch * fh * fw, pool_weight)
        return UniformPlan(batch, size, (fh, fw), pool_weight, windows=windows)
    window = torch.arange(fh * fw, device=device)
    above, rows = window_bounds(window // fw, height, fh)  # (S,)
    left, cols = window_bounds(window % fw, width, fw)
    longest, widest = -(-height // fh), -(-width // fw)
    i = torch.arange(longest * widest, device=device)  # slots of the largest window, row-major
    r, c = (i // widest).expand(len(window), -1), (i % widest).expand(len(window), -1)  # (S, L)
    valid = (r < rows[:, None]) & (c < cols[:, None])
    r, c = torch.minimum(r, rows[:, None] - 1), torch.minimum(c, cols[:, None] - 1)
    point = (above[:, None] + r) * width + left[:, None] + c  # (S, L)
    members = center_members(torch.stack([r, c], -1), torch.stack([rows, cols], -1)[:, None], centers_per_side)
    members = members & valid[..., None]  # (S, L, M)
    center_valid = first_occurrence(member_signature(members, i.expand_as(r)))
    pool_weight = members.transpose(1, 2) * reciprocal(members.sum(1), dtype)[..., None]  # (S, M, L)
    points = height * width
    slot = (~valid).flatten().to(torch.uint8).argsort(stable=True)[:points]  # (H * W,) slots with a point
    sets = torch.arange(batch, device=device)[:, None]
    valid = valid.repeat(batch, 1)  # (B S, L)
    return IndexPlan(
        order=(point.flatten()[slot] + sets * points).flatten(),
        partition_index=valid.flatten().cumsum(0).view(valid.shape) - 1,
        valid=valid,
        reverse_index=(slot + sets * point.numel()).flatten(),
        pool_weight=pool_weight.repeat(batch, 1, 1),
        row_window=None,
        center_valid=center_valid.repeat(batch, 1),
        num_windows=batch * len(window),
    )


def plan_padded(
    batch: int,
    size: tuple[int, int],
    windows_per_side: int,
    centers_per_side: int,
    dtype: torch.dtype,
    pad: str,
    shift: bool,
    table_size: int | None,
    global_centers_per_side: int | None,
    device: torch.device,
) -> UniformPlan | IndexPlan:
    """The plan of `batch` sets with equal windows of a grid padded by reflection; see `Grid.plan`."""
    height, width = size
    (fh, above, tall), (fw, left, wide) = (reflect_padding(side, windows_per_side, pad) for side in size)
    h, w = tall // fh, wide // fw
    down, right = (h // 2, w // 2) if shift else (0, 0)
    window = torch.arange(fh * fw, device=device)[:, None]
    inside = torch.arange(h * w, device=device)  # slots of a window, row-major
    r = (window // fw * h + inside // w + down) % tall  # (S, L) on the padded grid
    c = (window % fw * w + inside % w + right) % wide
    cell = torch.stack([r, c], -1)
    table_lookup, windows = None, None if shift else (fh, fw)
    if table_size is not None:
        table_lookup = TableLookup.of(cell, (tall, wide), table_size, dtype, windows)
    upper = None
    if global_centers_per_side is not None:
        members = center_members(cell, size_tensor((tall, wide), device), global_centers_per_side)  # (S, L, G)
        members = members.permute(2, 0, 1).flatten(1)
        pool_weight = members * reciprocal(members.sum(1, keepdim=True), dtype)
        window_cell = torch.cartesian_prod(torch.arange(fh, device=device), torch.arange(fw, device=device))[None]
        upper_lookup = TableLookup.of(window_cell, (fh, fw), windows_per_side, dtype, (1, 1))
        upper = UniformUpperLevel(batch, pool_weight, upper_lookup)
    pool_weight = _pool_weight(h, w, centers_per_side, dtype, device)
    if (tall, wide) == size and not shift:
        return UniformPlan(batch, size, (fh, fw), pool_weight, table_lookup, upper)
    r, c = (r - above).abs(), (c - left).abs()
    source = (height - 1 - (height - 1 - r).abs()) * width + width - 1 - (width - 1 - c).abs()  # (S, L)
    cell = torch.arange(height * width, device=device)
    r, c = (cell // width + above - down) % tall, (cell % width + left - right) % wide
    slot = ((r // h * fw + c // w) * h + r % h) * w + c % w  # (H W,)
    sets = torch.arange(batch, device=device)
    return IndexPlan(
        order=torch.arange(batch * len(cell), device=device),
        partition_index=(source + sets.view(-1, 1, 1) * len(cell)).flatten(0, 1),  # (B S, L)
        valid=None,
        reverse_index=(slot + sets[:, None] * source.numel()).flatten(),
        pool_weight=pool_weight.expand(batch * len(source), -1, -1),
        row_window=None,
        center_valid=None,
        num_windows=batch * len(source),
        table_lookup=table_lookup,
        upper=upper,
    )


def _packed(windows: int, pool_weight: Float[Tensor, "M L"]) -> PackedPlan:
    """Equal windows one after the other."""
    (centers, length), device = pool_weight.shape, pool_weight.device
    window = torch.arange(windows, device=device).repeat_interleave(length)
    members = (pool_weight > 0).t().repeat(windows, 1)
    ptr = torch.arange(windows + 1, device=device) * length
    return PackedPlan(ptr, window, members, members.new_ones(windows, centers))


def _pool_weight(
    height: int, width: int, centers_per_side: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "M L"]:
    """Adaptive average pooling of a window of height x width as a matrix."""
    cell = torch.arange(height * width, device=device)
    cell = torch.stack([cell // width, cell % width], -1)  # (L, 2)
    members = center_members(cell, size_tensor((height, width), device), centers_per_side).t()
    return members * reciprocal(members.sum(1, keepdim=True), dtype)
