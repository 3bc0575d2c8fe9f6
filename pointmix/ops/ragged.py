"""Ragged batches: B sets of points packed one after the other; set b is rows ptr[b] to ptr[b + 1].

In shapes, B1 stands for B + 1, the length of ptr.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def check_positions(
    what: str, pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"] | Sequence[int], *, empty: bool = False
) -> tuple[Float[Tensor, "N D"], Int[Tensor, "B1"]]:
    """Positions and ptr that are fit to compute with: positions without gradient, in single or double precision.

    Args:
        what: name of the operation, for error messages.
        pos: positions of B sets.
        ptr: where each set begins and ends; a list becomes a tensor.
        empty: allow sets without points.

    Raises:
        ValueError: if shapes or dtypes do not fit, ptr does not rise from 0 to N with a point in every set, or a
            position is NaN, infinite or so large that its square overflows.
    """
    if pos.ndim != 2 or pos.shape[1] < 1 or not pos.is_floating_point():
        raise ValueError(f"{what}: positions must be (N, D) floating point, got {tuple(pos.shape)} {pos.dtype}")
    ptr = check_ptr(what, ptr, len(pos), pos.device, empty=empty)
    pos = pos.detach()
    pos = pos if pos.dtype in (torch.float32, torch.float64) else pos.float()
    info = torch.finfo(pos.dtype)  # the bound allows for the roundings on the way to a squared distance
    largest = (info.max / pos.shape[1]) ** 0.5 / 2 * (1 - (pos.shape[1] + 4) * info.eps)
    if len(pos) and not -largest < min(ends := torch.stack(pos.aminmax()).tolist()) <= max(ends) < largest:
        bad = (~(pos.abs() < largest).all(1)).nonzero().squeeze(1)
        raise ValueError(
            f"{what}: positions must be finite and below {largest:.1g}, but {len(bad)} of {len(pos)} points are not, "
            f"the first is point {int(bad[0])} at {pos[bad[0]].tolist()}"
        )
    return pos, ptr


def check_ptr(
    what: str, ptr: Int[Tensor, "B1"] | Sequence[int], total: int, device: torch.device, *, empty: bool = False
) -> Int[Tensor, "B1"]:
    """ptr as a tensor; a list becomes one on this device.

    Raises:
        ValueError: if it does not rise from 0 to `total`, with a point in every set unless `empty`. Of a batch vector,
            the error says how to make a ptr of it.
    """
    ptr = as_ptr(what, ptr, device)
    if ptr.ndim != 1 or ptr.numel() < 2 or ptr.dtype != torch.int64:
        raise ValueError(f"{what}: ptr must be (B + 1,) int64 with B >= 1, got {tuple(ptr.shape)} {ptr.dtype}")
    if ptr.device != device:
        raise ValueError(f"{what}: positions are on {device}, ptr on {ptr.device}")
    bounds, least = ptr.tolist(), 0 if empty else 1
    if bounds[0] != 0 or bounds[-1] != total or any(b - a < least for a, b in pairwise(bounds)):
        every = "" if empty else " with a point in every set"
        shown = bounds if len(ptr) < 9 else f"{bounds[0]} to {bounds[-1]}"
        hint = ""
        if len(bounds) == total and bounds[0] == 0 and all(0 <= b - a <= 1 for a, b in pairwise(bounds)):
            hint = "; this looks like a batch vector, the set of each point: pass pointmix.ops.batch_to_ptr(batch)"
        raise ValueError(f"{what}: ptr must rise from 0 to {total}{every}, got {shown}{hint}")
    return ptr


def as_ptr(what: str, ptr: Int[Tensor, "B1"] | Sequence[int], device: torch.device) -> Int[Tensor, "B1"]:
    """A list or tuple of integers as a tensor; tensors are returned as they are."""
    if isinstance(ptr, Tensor):
        return ptr
    if isinstance(ptr, np.ndarray):
        ptr = ptr.tolist()
    if isinstance(ptr, (list, tuple)) and all(isinstance(i, Integral) and not isinstance(i, bool) for i in ptr):
        return torch.tensor([int(i) for i in ptr], dtype=torch.int64, device=device)
    raise ValueError(f"{what}: ptr must be a tensor or a list of integers, got {ptr!r}")


def counts_to_ptr(count: Int[Tensor, "B"]) -> Int[Tensor, "B1"]:
    """ptr of sets with that many points."""
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def batch_to_ptr(batch: Int[Tensor, "N"], num_sets: int | None = None) -> Int[Tensor, "B1"]:
    """ptr of a batch vector, which holds the set of each point.

    Args:
        batch: the set of each point, rising from 0.
        num_sets: B; by default one more than the last entry.

    Raises:
        ValueError: if it is not a vector of rising non-negative integers below B.
    """
    if batch.ndim != 1 or batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"batch must be (N,) of integers, got {tuple(batch.shape)} {batch.dtype}")
    if len(batch) and (batch[0] < 0 or (batch.diff() < 0).any()):
        raise ValueError("batch must rise from 0: sort the points by their set first")
    least = int(batch[-1]) + 1 if len(batch) else 0
    if num_sets is not None and num_sets < least:
        raise ValueError(f"batch holds set {least - 1}, but there are only {num_sets} sets")
    return counts_to_ptr(torch.bincount(batch, minlength=num_sets or 0))


def ptr_to_batch(ptr: Int[Tensor, "B1"], total: int) -> Int[Tensor, "N"]:
    """The set of each of the N = total points."""
    sets = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(sets, ptr.diff(), output_size=total)


def set_bounds(*ptr: Int[Tensor, "_"]) -> list[tuple[int, ...]]:
    """(begin, end) of each set, or (begin, end, begin, end) of each pair of sets of two ptr."""
    bounds = [p.tolist() for p in ptr]
    return [tuple(i for b in bounds for i in b[s : s + 2]) for s in range(len(bounds[0]) - 1)]


def to_dense_batch(
    x: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"]
) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
    """The sets side by side, padded with zeros to the largest, and which slots hold a point."""
    size = ptr.diff()
    mask = torch.arange(int(size.max()), device=x.device) < size[:, None]  # (B, L)
    out = x.new_zeros(*mask.shape, x.shape[1])
    out[mask] = x
    return out, mask


def squared_distance(x: Float[Tensor, "D *N"], y: Float[Tensor, "D *M"]) -> Float[Tensor, "*K"]:
    """|x - y|^2, broadcast over all but the first dimension.

    Added axis by axis, with one rounding for each operation. All backends do the same, so that they find the same
    neighbors.
    """
    d = (x[0] - y[0]).square()
    for a, b in zip(x[1:], y[1:], strict=True):
        d += (a - b).square()
    return d
