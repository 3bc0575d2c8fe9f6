"""Plans of whole lattices: they depend on sizes alone, never on where the points are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pointmix.layouts.plan import EvenPlan, IndexPlan
from pointmix.layouts.top import EvenTop, Taps, share_of
from pointmix.layouts.windows import around, first_of_equals, member_signature, reflection, sides_of, window_bounds

Size = tuple[int, int]


def plan_even(
    batch: int, size: Size, folds: int, centers: int, dtype: torch.dtype, device: torch.device
) -> EvenPlan | IndexPlan:
    """Windows that differ by a row or column at most, of so many sets; see `Grid.plan`."""
    height, width = size
    fh, fw = min(folds, height), min(folds, width)
    if height % fh == 0 and width % fw == 0 and centers <= min(height // fh, width // fw):
        pooling = _pooling(height // fh, width // fw, centers, dtype, device)
        return EvenPlan(batch, size, (fh, fw), pooling)
    window = torch.arange(fh * fw, device=device)
    above, rows = window_bounds(window // fw, height, fh)  # (S,)
    left, cols = window_bounds(window % fw, width, fw)
    longest, widest = -(-height // fh), -(-width // fw)
    i = torch.arange(longest * widest, device=device)  # slots of the largest window, row-major
    r, c = (i // widest).expand(len(window), -1), (i % widest).expand(len(window), -1)  # (S, L)
    valid = (r < rows[:, None]) & (c < cols[:, None])
    r, c = torch.minimum(r, rows[:, None] - 1), torch.minimum(c, cols[:, None] - 1)
    slot = (above[:, None] + r) * width + left[:, None] + c  # (S, L)
    members = around(torch.stack([r, c], -1), torch.stack([rows, cols], -1)[:, None], centers)
    members = members & valid[..., None]  # (S, L, M)
    center_valid = first_of_equals(member_signature(members, i.expand_as(r)))
    pooling = members.transpose(1, 2) * share_of(members.sum(1), dtype)[..., None]  # (S, M, L)
    points = height * width
    place = (~valid).flatten().to(torch.uint8).argsort(stable=True)[:points]  # (H * W,) slots with a point
    sets = torch.arange(batch, device=device)[:, None]
    valid = valid.repeat(batch, 1)  # (B S, L)
    return IndexPlan(
        order=(slot.flatten()[place] + sets * points).flatten(),
        slot=valid.flatten().cumsum(0).view(valid.shape) - 1,
        valid=valid,
        place=(place + sets * slot.numel()).flatten(),
        pooling=pooling.repeat(batch, 1, 1),
        row_window=None,
        center_valid=center_valid.repeat(batch, 1),
        windows=batch * len(window),
    )


def plan_reflected(
    batch: int,
    size: Size,
    folds: int,
    centers: int,
    dtype: torch.dtype,
    pad: str,
    shift: bool,
    table: int | None,
    top: int | None,
    device: torch.device,
) -> EvenPlan | IndexPlan:
    """Equal windows of lattices continued by reflection: everything of one set, whose like all others are."""
    height, width = size
    (fh, above, tall), (fw, left, wide) = (reflection(side, folds, pad) for side in size)
    h, w = tall // fh, wide // fw
    down, right = (h // 2, w // 2) if shift else (0, 0)
    window = torch.arange(fh * fw, device=device)[:, None]
    inside = torch.arange(h * w, device=device)  # slots of a window, row-major
    r = (window // fw * h + inside // w + down) % tall  # (S, L) on the continued lattice
    c = (window % fw * w + inside % w + right) % wide
    cell = torch.stack([r, c], -1)
    taps = None if table is None else Taps.of(cell, (tall, wide), table, dtype)
    over = None
    if top is not None:
        members = around(cell, sides_of((tall, wide), device), top).permute(2, 0, 1)  # (G, S, L)
        members = members.flatten(1)
        pooling = members * share_of(members.sum(1, keepdim=True), dtype)
        on = torch.cartesian_prod(torch.arange(fh, device=device), torch.arange(fw, device=device))[None]
        over = EvenTop(batch, pooling, Taps.of(on, (fh, fw), folds, dtype))
    if (tall, wide) == size and not shift:
        return EvenPlan(batch, size, (fh, fw), _pooling(h, w, centers, dtype, device), taps, over)
    r, c = (r - above).abs(), (c - left).abs()
    source = (height - 1 - (height - 1 - r).abs()) * width + width - 1 - (width - 1 - c).abs()  # (S, L)
    cell = torch.arange(height * width, device=device)
    r, c = (cell // width + above - down) % tall, (cell % width + left - right) % wide
    place = ((r // h * fw + c // w) * h + r % h) * w + c % w  # (H W,)
    sets = torch.arange(batch, device=device)
    return IndexPlan(
        order=torch.arange(batch * len(cell), device=device),
        slot=(source + sets.view(-1, 1, 1) * len(cell)).flatten(0, 1),  # (B S, L)
        valid=None,
        place=(place + sets[:, None] * source.numel()).flatten(),
        pooling=_pooling(h, w, centers, dtype, device).expand(batch * len(source), -1, -1),
        row_window=None,
        center_valid=None,
        windows=batch * len(source),
        taps=taps,
        top=over,
    )


def _pooling(height: int, width: int, centers: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "M L"]:
    """Adaptive average pooling of a window as a matrix."""
    cell = torch.arange(height * width, device=device)
    cell = torch.stack([cell // width, cell % width], -1)  # (L, 2)
    members = around(cell, sides_of((height, width), device), centers).t()
    return members * share_of(members.sum(1, keepdim=True), dtype)
