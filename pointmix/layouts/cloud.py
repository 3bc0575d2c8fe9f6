"""Points anywhere in any number of dimensions: scans, back-projected depth, pixels taken off their lattice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.plan import IndexPlan, plan_windows
from pointmix.layouts.top import IndexTop
from pointmix.ops.neighbors import knn
from pointmix.ops.precision import at_least_float32
from pointmix.ops.ragged import counts_to_ptr as offsets
from pointmix.ops.ragged import ptr_to_batch as set_of
from pointmix.ops.ragged import squared_distance
from pointmix.ops.sampling import farthest_point_sampling, grid_sampling, random_sampling

SAMPLING = ("fps", "grid", "random")


@dataclass(frozen=True)
class Cloud:
    """Free positions. How points are thinned out is part of the layout, as nothing else says which of them count.

    Args:
        sampling: how anchors and centers are proposed: "fps" (farthest points), "grid" (the point nearest to the middle
            of each cell of an even grid) or "random" (the same draw for the same set).
        nested: the points of each set lie in the order in which farthest-point sampling picked them. The first ones
            are then what it would pick among them again.
    """

    sampling: str = "fps"
    nested: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLING:
            raise ValueError(f"sampling must be one of {SAMPLING}, got {self.sampling!r}")

    def __repr__(self) -> str:
        return "cloud"

    def check(self, points: int, sets: int) -> None:
        """Any number of points will do."""

    def points_per_set(self) -> None:
        """Sets differ in their number of points."""

    def as_sparse(self, sets: int, device: torch.device) -> Cloud:
        return self

    def take(self, points: slice | Int[Tensor, "K"], sets: slice) -> Cloud:
        """Some of the points, of some of the sets."""
        return Cloud(self.sampling)

    def cat(self, others: list[Cloud]) -> Cloud:
        """This batch of sets and others."""
        return Cloud(self.sampling)

    def to_image(self, feat, ptr, fill: float):
        raise ValueError("to_image: these points have no lattice")

    def reduce(self, pos, feat, ptr, weight, bias, *, stride: int, padding: int, keep: str, absent: str = "zero"):
        """One point of stride^2 stays as an anchor and sees its kernel^2 nearest points, itself among them.

        Their features are concatenated by distance and mapped linearly (Context Clusters, section 3.1); the first
        weight of the kernel, row by row, is the nearest point's. `padding` and `keep` are of lattices.
        """
        anchor, new_ptr = self.anchors(pos, ptr, stride * stride)
        near = knn(pos, ptr, pos[anchor], new_ptr, weight.shape[-1] ** 2)  # (N', K)
        taps = weight.permute(0, 2, 3, 1).flatten(1)  # (Cout, K Cin), row-major
        rows = feat.index_select(0, near.flatten()).view(len(anchor), -1)  # (N', K Cin)
        picked = self.nested if stride == 1 else self.sampling == "fps"  # without a stride nothing is picked
        return pos[anchor], F.linear(rows, taps, bias), new_ptr, Cloud(self.sampling, nested=picked)

    def pool(self, points, coarse, stride: int) -> tuple[Float[Tensor, "K C"], Bool[Tensor, "K"]]:
        """Mean features of the stride^2 nearest points of each anchor, itself among them, and which of these means come
        from other points than any before them; see `Grid.pool`."""
        near = knn(points.pos, points.ptr, coarse.pos, coarse.ptr, stride * stride)  # (K, n)
        slot = torch.arange(near.shape[1], device=near.device)
        size = points.ptr.diff()[set_of(coarse.ptr, len(near)), None]  # (K, 1)
        again = slot >= size  # smaller sets than n begin anew
        rows = points.feat.index_select(0, near.flatten()).view(*near.shape, -1)
        total = rows.masked_fill(again[..., None], 0).sum(1, dtype=at_least_float32(rows.dtype))
        mean = (total / size.clamp(max=near.shape[1])).to(rows.dtype)
        number = torch.unique(near.masked_fill(again, -1).sort(1).values, dim=0, return_inverse=True)[1]  # (K,)
        place = torch.arange(len(near), device=near.device)
        first = place.scatter_reduce(0, number, place, "amin", include_self=False)
        return mean, first[number] == place

    def anchors(
        self, pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B+1"], share: int
    ) -> tuple[Int[Tensor, "K"], Int[Tensor, "B+1"]]:
        """One point of `share` in each set, rounded up ("grid": about so many), and their ptr."""
        if share == 1:
            return torch.arange(len(pos), device=pos.device), ptr
        count = -(-ptr.diff() // share)
        if self.nested:
            new_ptr = offsets(count)
            batch = set_of(new_ptr, int(new_ptr[-1]))
            return torch.arange(len(batch), device=pos.device) + (ptr - new_ptr)[batch], new_ptr
        if self.sampling == "random":
            return random_sampling(ptr, ratio=1 / share, seed=0)
        if self.sampling == "fps":
            return farthest_point_sampling(pos, ptr, ratio=1 / share)
        batch = set_of(ptr, len(pos))
        place = _in_box(pos, batch, len(count))
        return grid_sampling(place * _sides(place, batch, count)[batch, None], ptr, 1.0)

    def plan(
        self,
        pos: Float[Tensor, "N D"],
        ptr: Int[Tensor, "B+1"],
        folds: int,
        centers: int,
        *,
        pad: str | None = None,
        shift: bool = False,
        table: int | None = None,
        top: int | None = None,
    ) -> IndexPlan:
        """Windows are `folds` equal boxes a side of each set's bounding box, in all dimensions; no box is empty.

        Each proposes centers^2 centers (centers^D for "grid"), whose features are the mean of the nearest points, of
        n in a window ceil(n / M) for each of M centers, as average pooling takes on a lattice. So does the whole set
        with `top` in place of `centers`. `shift` rolls the boxes by half of one, cyclically; `pad` only says that
        centers are kept where they coincide, and a `table` of a lattice is not read.
        """
        batch = set_of(ptr, len(pos))
        place = _in_box(pos, batch, ptr.numel() - 1)  # (N, D), in [0, 1)
        box = (place * folds + 0.5) % folds if shift else place * folds
        number = batch
        for axis in box.t():  # numbered anew with each axis, so that no number of dimensions overflows
            number = torch.unique(number * folds + axis.long(), return_inverse=True)[1]
        counts = torch.bincount(number)
        order = torch.argsort(number, stable=True)  # points window by window
        number, x = number[order], pos.detach()[order].to(box.dtype)
        members = self._members(x, box[order].frac(), number, counts, centers)
        plan = plan_windows(order, counts, members, pos.dtype, distinct=pad is None)
        if top is None:
            return plan
        batch = batch[order]  # windows lie set by set
        members = self._members(x, place[order], batch, ptr.diff(), top)[plan.slot]  # (R, L, G)
        window_set = batch[counts.cumsum(0) - counts]
        over = IndexTop.of(members, plan.valid, plan.row_window, window_set, ptr.numel() - 1, pos.dtype)
        return replace(plan, top=over)

    def _members(
        self,
        x: Float[Tensor, "N D"],
        place: Float[Tensor, "N D"],
        number: Int[Tensor, "N"],
        counts: Int[Tensor, "S"],
        centers: int,
    ) -> Bool[Tensor, "N M"]:
        """Which points lie around which centers of their part; points lie part by part, at `place` of its box."""
        first = counts.cumsum(0) - counts  # (S,)
        if self.sampling == "grid":  # in units of the part
            x = place
            middle = (torch.arange(centers, device=x.device, dtype=x.dtype) + 0.5) / centers
            proposal = torch.cartesian_prod(*[middle] * x.shape[1]).view(1, -1, x.shape[1])  # (1, M, D)
            proposal = proposal.expand(len(counts), -1, -1)
        elif self.sampling == "fps":
            proposal = x[_farthest(x, number, counts, centers**2)]  # (S, M, D)
        else:
            nth = torch.arange(centers**2, device=x.device) * counts[:, None] // centers**2  # (S, M)
            proposal = x[random_sampling(offsets(counts), ratio=1.0, seed=0)[0][first[:, None] + nth]]
        d = squared_distance(x.t()[..., None], proposal.movedim(2, 0)[:, number])  # (N, M)
        return _nearest(d, number, counts)


def canonical_order(pos: Float[Tensor, "N D"], feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B+1"]) -> Int[Tensor, "N"]:
    """The points of each set in an order that depends on nothing but the points: by position, then by features.

    Where sampling starts and how ties between equal distances end follows from the order; so it must not be the
    accident of a file's.
    """
    order = torch.arange(len(pos), device=pos.device)
    keys = [set_of(ptr, len(pos)), *pos.t()]
    by_position = _lexsort(keys)
    here = torch.stack([key.double()[by_position] for key in keys])
    if (here[:, 1:] == here[:, :-1]).all(0).any():  # points coincide
        return _lexsort([*keys, *feat.t()])
    return order[by_position]


def _lexsort(keys: list[Tensor]) -> Int[Tensor, "N"]:
    """By the first key, then by the second where the first are equal, and so on."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order


def _in_box(pos: Float[Tensor, "N D"], batch: Int[Tensor, "N"], sets: int) -> Float[Tensor, "N D"]:
    """Where each point is in the bounding box of its set, in [0, 1); 0 along a side without extent."""
    pos = pos.detach().double()
    index = batch[:, None].expand_as(pos)
    low = pos.new_full((sets, pos.shape[1]), torch.inf).scatter_reduce(0, index, pos, "amin")
    high = pos.new_full((sets, pos.shape[1]), -torch.inf).scatter_reduce(0, index, pos, "amax")
    extent = high - low
    place = (pos - low[batch]) / torch.where(extent > 0, extent, 1.0)[batch]
    return place.clamp(max=1 - torch.finfo(place.dtype).eps)


def _sides(place: Float[Tensor, "N D"], batch: Int[Tensor, "N"], count: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Cells a side of each set's box such that about `count` of them hold a point.

    count^(1/D) where points fill the box; scans are surfaces and leave most of it empty, so the side is corrected as if
    the cells that do hold one grew with its square.
    """
    dims = place.shape[1]
    most = float(2 ** (48 // dims))  # so that cells can be numbered
    side = count.double().pow(1 / dims).round()
    for _ in range(8):
        key = batch
        for axis in (place * side[batch, None]).t():
            key = key * int(most) + axis.long()
        held = torch.bincount(torch.unique(key) // int(most) ** dims, minlength=len(count))  # (B,) cells with a point
        ratio = count / held
        near = (ratio - 1).abs() < 0.1
        if near.all():
            break
        side = torch.where(near, side, (side * ratio.sqrt()).clamp(1, most))
    return side


def _farthest(
    x: Float[Tensor, "N D"], window: Int[Tensor, "N"], counts: Int[Tensor, "S"], number: int
) -> Int[Tensor, "S M"]:
    """Farthest points of every window, its first point first; again its first one where points run out."""
    place = torch.arange(len(x), device=x.device)
    first = counts.cumsum(0) - counts
    pick, picks = first, []
    d = x.new_full((len(x),), torch.inf)
    for _ in range(number):
        picks.append(pick)
        d = torch.minimum(d, squared_distance(x.t(), x[pick[window]].t()))
        far = d.new_zeros(len(counts)).scatter_reduce(0, window, d, "amax")
        last = len(x) - 1
        # where points run out all d are 0, so that this is the first place again
        pick = torch.full_like(pick, last).scatter_reduce(0, window, place.where(d == far[window], last), "amin")
    return torch.stack(picks, dim=1)


def _nearest(d: Float[Tensor, "N M"], window: Int[Tensor, "N"], counts: Int[Tensor, "S"]) -> Bool[Tensor, "N M"]:
    """Which points are among the ceil(n / M) nearest of their window's n to each center; ties to the first."""
    by_distance = d.argsort(dim=0, stable=True)
    order = by_distance.gather(0, window[by_distance].argsort(dim=0, stable=True))  # window by window, nearest first
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(len(d), device=d.device)[:, None].expand_as(order))
    return rank - (counts.cumsum(0) - counts)[window][:, None] < -(-counts // d.shape[1])[window][:, None]


pytree.register_pytree_node(
    Cloud,
    lambda c: ([], (c.sampling, c.nested)),
    lambda _, context: Cloud(*context),
    serialized_type_name="pointmix.Cloud",
    flatten_with_keys_fn=lambda c: ([], (c.sampling, c.nested)),
)
