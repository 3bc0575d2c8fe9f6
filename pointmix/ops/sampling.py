"""Some of the points of each set: farthest points, one point a cell, or random ones.

Every function returns indices into the packed positions, set after set, and their ptr. What a set gets depends on
nothing but the set itself and the seed, not on its batch or the device.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.ops.choice import fastest
from pointmix.ops.ragged import checked, offsets, padded, set_of, squared_distance


def farthest_point_sampling(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B+1"],
    num_samples: int | None = None,
    *,
    ratio: float | None = None,
    start: Int[Tensor, "B"] | None = None,
    seed: int | None = None,
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B+1"]]:
    """Points that are far from one another: each pick is the point farthest from all earlier picks of its set.

    Of equally far points the one of the lowest index is taken. No point is picked twice: once all that is left
    coincides with a pick, the rest follows by index.

    Args:
        pos, ptr: B sets in D dimensions.
        num_samples, ratio: points wanted from each set, or their share in (0, 1], rounded up. One of the two. A set
            with fewer points gives all of them.
        start: the first pick of each set, counted from the beginning of the set. By default its first point.
        seed: draw the first pick of each set at random instead.

    Returns:
        Indices into pos, set after set in the order of the picks, and their ptr.

    Raises:
        ValueError: if shapes, dtypes, ptr, num_samples, ratio or start do not fit, or a position is not finite.
    """
    what = "farthest_point_sampling"
    pos = checked(what, pos, ptr)
    out_ptr = offsets(wanted(what, ptr, num_samples, ratio))
    start = first_picks(what, ptr, start, seed)
    fast = fastest("farthest_points", pos, int(ptr.diff().max()))
    return (fast or farthest_points_reference)(pos, ptr, out_ptr, start), out_ptr


def farthest_points_reference(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], out_ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"]
) -> Int[Tensor, "K"]:
    """The reference form of `farthest_point_sampling`, all sets side by side:

    d_n = min over the picks p of |x_n - x_p|^2, and the next pick is the first n with the largest d_n.
    """
    x, real = padded(pos, ptr)
    x = x.movedim(2, 0).contiguous()  # (B, L, D) -> (D, B, L)
    d = torch.where(real, torch.inf, -2.0).to(pos.dtype)  # (B, L), below every pick where there is no point
    pick, picks = start[:, None], []
    for _ in range(int(out_ptr.diff().max())):
        picks.append(pick)
        d = torch.minimum(d, squared_distance(x, x.gather(2, pick.expand(len(x), -1, -1))))
        d.scatter_(1, pick, -1.0)  # not again
        pick = d.argmax(dim=1, keepdim=True)
    index = torch.cat(picks, dim=1) + ptr[:-1, None]  # (B, most picks)
    return index[torch.arange(index.shape[1], device=pos.device) < out_ptr.diff()[:, None]]


def grid_sampling(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], size: float
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B+1"]]:
    """One point in each occupied cell of a cubic lattice with a corner at the origin: the nearest to the cell's center.

    Args:
        pos, ptr: B sets in D dimensions.
        size: the side of a cell, in the unit of the positions.

    Returns:
        Indices into pos, set after set, by cell in row-major order, and their ptr.

    Raises:
        ValueError: if shapes, dtypes or ptr do not fit, a position is not finite, or the size is not positive or so
            small that cells cannot be counted.
    """
    pos = checked("grid_sampling", pos, ptr)
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"grid_sampling: size must be positive, got {size}")
    place = pos.double() / size
    if place.abs().max() > 2**52:
        raise ValueError(f"grid_sampling: size {size} is too small for positions up to {float(pos.abs().max()):.3g}")
    cell = place.floor()  # (N, D)
    row = torch.cat([set_of(ptr, len(pos))[:, None], cell.long()], dim=1)
    cells, owner = row.unique(dim=0, return_inverse=True)  # sorted, so by set and then by cell
    order = squared_distance(place.t(), (cell + 0.5).t()).sort(stable=True).indices  # the nearest to a center first
    order = order[owner[order].sort(stable=True).indices]  # cell after cell
    first = torch.cat([owner.new_zeros(1), torch.bincount(owner).cumsum(0)[:-1]])
    return order[first], offsets(torch.bincount(cells[:, 0], minlength=ptr.numel() - 1))


def random_sampling(
    ptr: Int[Tensor, "B+1"], num_samples: int | None = None, *, ratio: float | None = None, seed: int
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B+1"]]:
    """Different random points of each set, in random order; sets of one size get the same places.

    Arguments, returns and errors are those of `farthest_point_sampling`.
    """
    count = wanted("random_sampling", ptr, num_samples, ratio)
    drawn = [
        torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:k]
        for size, k in zip(ptr.diff().tolist(), count.tolist(), strict=True)
    ]
    out_ptr = offsets(count)
    index = torch.cat(drawn).to(ptr.device)
    return index + ptr[:-1][set_of(out_ptr, len(index))], out_ptr


def wanted(what: str, ptr: Int[Tensor, "B+1"], num_samples: int | None, ratio: float | None) -> Int[Tensor, "B"]:
    """How many points of each set are to be kept."""
    size = ptr.diff()
    if (num_samples is None) == (ratio is None):
        raise ValueError(f"{what}: give either num_samples or ratio, got num_samples={num_samples}, ratio={ratio}")
    if num_samples is not None:
        if not math.isfinite(num_samples) or num_samples != int(num_samples) or num_samples < 1:
            raise ValueError(f"{what}: num_samples must be an integer of at least 1, got {num_samples}")
        return size.clamp(max=int(num_samples))
    if not 0 < ratio <= 1:
        raise ValueError(f"{what}: ratio must be in (0, 1], got {ratio}")
    return (size.double() * ratio - 1e-6).ceil().long().clamp(min=1)  # 0.1 of 30 is 3, whatever its rounding


def first_picks(
    what: str, ptr: Int[Tensor, "B+1"], start: Int[Tensor, "B"] | None, seed: int | None
) -> Int[Tensor, "B"]:
    """Where to start in each set."""
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
