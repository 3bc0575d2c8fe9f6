"""A ragged batch of positions: B sets, packed one after the other, set b being rows ptr[b] to ptr[b + 1]."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def checked(what: str, pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], *, empty: bool = False) -> Tensor:
    """Positions fit to compute with: without gradient, in single or double precision.

    Raises:
        ValueError: if shapes or dtypes do not fit, ptr does not rise from 0 to N with a point in every set (none is
            allowed with `empty`), or a position is NaN, infinite or so large that its square overflows.
    """
    if pos.ndim != 2 or pos.shape[1] < 1 or not pos.is_floating_point():
        raise ValueError(f"{what}: positions must be (N, D) floating point, got {tuple(pos.shape)} {pos.dtype}")
    if ptr.ndim != 1 or ptr.numel() < 2 or ptr.dtype != torch.int64:
        raise ValueError(f"{what}: ptr must be (B + 1,) int64 with B >= 1, got {tuple(ptr.shape)} {ptr.dtype}")
    if ptr.device != pos.device:
        raise ValueError(f"{what}: positions are on {pos.device}, ptr on {ptr.device}")
    bounds, least = ptr.tolist(), 0 if empty else 1
    if bounds[0] != 0 or bounds[-1] != len(pos) or any(b - a < least for a, b in pairwise(bounds)):
        every = "" if empty else " with a point in every set"
        shown = bounds if len(ptr) < 9 else f"{bounds[0]} to {bounds[-1]}"
        raise ValueError(f"{what}: ptr must rise from 0 to {len(pos)}{every}, got {shown}")
    pos = pos.detach()
    pos = pos if pos.dtype in (torch.float32, torch.float64) else pos.float()
    info = torch.finfo(pos.dtype)  # a distance is rounded some times on the way to its square
    largest = (info.max / pos.shape[1]) ** 0.5 / 2 * (1 - (pos.shape[1] + 4) * info.eps)
    if len(pos) and not -largest < min(ends := torch.stack(pos.aminmax()).tolist()) <= max(ends) < largest:
        bad = (~(pos.abs() < largest).all(1)).nonzero().squeeze(1)
        raise ValueError(
            f"{what}: positions must be finite and below {largest:.1g}, but {len(bad)} of {len(pos)} points are not, "
            f"the first is point {int(bad[0])} at {pos[bad[0]].tolist()}"
        )
    return pos


def offsets(count: Int[Tensor, "B"]) -> Int[Tensor, "B+1"]:
    """ptr of sets with that many points."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def set_of(ptr: Int[Tensor, "B+1"], total: int) -> Int[Tensor, "N"]:
    """The set that each of the N = total points belongs to."""
    sets = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(sets, ptr.diff(), output_size=total)


def spans(*ptr: Int[Tensor, "B+1"]) -> list[tuple[int, ...]]:
    """(begin, end) of each set, or (begin, end, begin, end) of each pair of sets."""
    bounds = [p.tolist() for p in ptr]
    return [tuple(i for b in bounds for i in b[s : s + 2]) for s in range(len(bounds[0]) - 1)]


def padded(x: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"]) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
    """The sets side by side, filled up with zeros to the largest, and which slots hold a point."""
    size = ptr.diff()
    real = torch.arange(int(size.max()), device=x.device) < size[:, None]  # (B, L)
    out = x.new_zeros(*real.shape, x.shape[1])
    out[real] = x
    return out, real


def squared_distance(x: Float[Tensor, "D *N"], y: Float[Tensor, "D *M"]) -> Float[Tensor, "*K"]:
    """|x - y|^2, broadcast over all but the first dimension.

    Axis after axis, with one rounding an operation: other backends do the same and so find the same neighbors.
    """
    d = (x[0] - y[0]).square()
    for a, b in zip(x[1:], y[1:], strict=True):
        d += (a - b).square()
    return d
