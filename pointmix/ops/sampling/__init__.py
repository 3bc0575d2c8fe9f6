"""Samples of the points of each set: farthest points, one point per grid cell, or random points.

Every function returns indices into the packed positions, set after set, and their ptr. The sample of a set depends only
on the set and the seed, not on the rest of the batch or the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.dispatch import NUMBA, PYTORCH3D, TORCH_CLUSTER, TRITON, Implementation, choose, register
from pointmix.ops.ragged import as_ptr, check_positions, check_ptr, counts_to_ptr, ptr_to_batch, squared_distance
from pointmix.ops.sampling.reference import farthest_points_reference

__all__ = ["farthest_point_sampling", "farthest_points_reference", "grid_sampling", "random_sampling"]

register(
    "farthest_points",
    Implementation(NUMBA, "pointmix.ops.sampling.numba:farthest_points", default=("cpu",), devices=("cpu",)),
    Implementation(
        TRITON,
        "pointmix.ops.sampling.triton:farthest_points",
        default=("cuda",),
        devices=("cuda",),
        dtypes=(torch.float32,),
        limit=16384,
        unit="points in a set",
    ),
    Implementation(TORCH_CLUSTER, "pointmix.ops.sampling.torch_cluster:farthest_points", default=("cuda",)),
    Implementation(
        PYTORCH3D,
        "pointmix.ops.sampling.pytorch3d:farthest_points",
        default=("cuda",),
        dtypes=(torch.float32,),
    ),
)


def farthest_point_sampling(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"] | Sequence[int],
    num_samples: int | None = None,
    *,
    ratio: float | None = None,
    start: Int[Tensor, "B"] | None = None,
    seed: int | None = None,
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B1"]]:
    """Farthest point sampling: each pick is the point farthest from all earlier picks of its set.

    Ties go to the lowest index. No point is picked twice: once all remaining points coincide with a pick, they follow
    by index.

    Args:
        pos, ptr: B sets in D dimensions.
        num_samples, ratio: points to pick from each set, or their share in (0, 1], rounded up. Give one of the two. A
            set with fewer points gives all of them.
        start: the first pick of each set, counted from the beginning of the set. By default its first point.
        seed: draw the first pick of each set at random instead.

    Returns:
        Indices into pos, set after set in the order of the picks, and their ptr.

    Raises:
        ValueError: if shapes, dtypes, ptr, num_samples, ratio or start do not fit, or a position is not finite.

    Source: Qi et al., "PointNet++", NeurIPS 2017, section 3.2.
    """
    what = "farthest_point_sampling"
    pos, ptr = check_positions(what, pos, ptr)
    out_ptr = counts_to_ptr(sample_counts(what, ptr, num_samples, ratio))
    start = start_points(what, ptr, start, seed)
    function = choose("farthest_points", pos, size=int(ptr.diff().max())) or farthest_points_reference
    return function(pos, ptr, out_ptr, start), out_ptr


def grid_sampling(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"] | Sequence[int], size: float
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B1"]]:
    """One point per occupied cell of a cubic grid with a corner at the origin: the one nearest to the cell's center.

    Args:
        pos, ptr: B sets in D dimensions.
        size: the side of a cell, in the unit of the positions.

    Returns:
        Indices into pos, set after set, by cell in row-major order, and their ptr.

    Raises:
        ValueError: if shapes, dtypes or ptr do not fit, a position is not finite, or the size is not positive or so
            small that cells cannot be counted.
    """
    pos, ptr = check_positions("grid_sampling", pos, ptr)
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"grid_sampling: size must be positive, got {size}")
    place = pos.double() / size
    if place.abs().max() > 2**52:
        raise ValueError(f"grid_sampling: size {size} is too small for positions up to {float(pos.abs().max()):.3g}")
    cell = place.floor()  # (N, D)
    row = torch.cat([ptr_to_batch(ptr, len(pos))[:, None], cell.long()], dim=1)
    cells, owner = row.unique(dim=0, return_inverse=True)  # sorted, so by set and then by cell
    order = squared_distance(place.t(), (cell + 0.5).t()).sort(stable=True).indices  # the nearest to a center first
    order = order[owner[order].sort(stable=True).indices]  # cell after cell
    first = torch.cat([owner.new_zeros(1), torch.bincount(owner).cumsum(0)[:-1]])
    return order[first], counts_to_ptr(torch.bincount(cells[:, 0], minlength=ptr.numel() - 1))


def random_sampling(
    ptr: Int[Tensor, "B1"] | Sequence[int], num_samples: int | None = None, *, ratio: float | None = None, seed: int
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B1"]]:
    """Random points of each set without replacement, in random order; sets of one size get the same places.

    Arguments, returns and errors are those of `farthest_point_sampling`.
    """
    ptr = as_ptr("random_sampling", ptr, torch.device("cpu"))
    ptr = check_ptr("random_sampling", ptr, int(ptr.flatten()[-1]) if ptr.numel() else 0, ptr.device)
    count = sample_counts("random_sampling", ptr, num_samples, ratio)
    drawn = [
        torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:k]
        for size, k in zip(ptr.diff().tolist(), count.tolist(), strict=True)
    ]
    out_ptr = counts_to_ptr(count)
    index = torch.cat(drawn).to(ptr.device)
    return index + ptr[:-1][ptr_to_batch(out_ptr, len(index))], out_ptr


def sample_counts(what: str, ptr: Int[Tensor, "B1"], num_samples: int | None, ratio: float | None) -> Int[Tensor, "B"]:
    """How many points to pick from each set."""
    size = ptr.diff()
    if (num_samples is None) == (ratio is None):
        raise ValueError(f"{what}: give either num_samples or ratio, got num_samples={num_samples}, ratio={ratio}")
    if num_samples is not None:
        if not math.isfinite(num_samples) or num_samples != int(num_samples) or num_samples < 1:
            raise ValueError(f"{what}: num_samples must be an integer of at least 1, got {num_samples}")
        return size.clamp(max=int(num_samples))
    if ratio is None or not 0 < ratio <= 1:
        raise ValueError(f"{what}: ratio must be in (0, 1], got {ratio}")
    return (size.double() * ratio - 1e-6).ceil().long().clamp(min=1)  # 0.1 of 30 is 3, whatever its rounding


def start_points(
    what: str, ptr: Int[Tensor, "B1"], start: Int[Tensor, "B"] | None, seed: int | None
) -> Int[Tensor, "B"]:
    """The first pick of each set, counted from the beginning of the set."""
    size = ptr.diff()
    if start is not None and seed is not None:
        raise ValueError(f"{what}: give either start or seed, got both")
    if seed is not None:
        first = [int(torch.randint(n, (), generator=torch.Generator().manual_seed(seed))) for n in size.tolist()]
        return torch.tensor(first, device=ptr.device)
    if start is None:
        return torch.zeros_like(size)
    if start.shape != size.shape or start.dtype != torch.int64 or start.device != ptr.device:
        raise ValueError(
            f"{what}: start must be ({len(size)},) int64 on {ptr.device}, got {tuple(start.shape)} {start.dtype} on "
            f"{start.device}"
        )
    if ((start < 0) | (start >= size)).any():
        b = int(((start < 0) | (start >= size)).nonzero()[0])
        raise ValueError(f"{what}: start of set {b} is {int(start[b])}, but the set has {int(size[b])} points")
    return start
