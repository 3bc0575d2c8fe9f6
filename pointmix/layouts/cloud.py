"""Points at any position in any number of dimensions: scans, back-projected depth, pixels without their grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.utils import _pytree as pytree

from pointmix.layouts.base import Points, Slice
from pointmix.layouts.lift import IndexLift, LiftMode, point_lift
from pointmix.layouts.neighborhood import IndexNeighborhood
from pointmix.layouts.plan import IndexPlan, index_plan
from pointmix.layouts.upper import IndexUpperLevel
from pointmix.ops.kernels.operators import dynamic_size, opaque
from pointmix.ops.neighbors import knn
from pointmix.ops.precision import at_least_float32
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch, squared_distance
from pointmix.ops.sampling import farthest_point_sampling, grid_sampling, random_sampling

SAMPLING = ("fps", "grid", "random")


@dataclass(frozen=True)
class Cloud:
    """Free positions.

    Args:
        sampling: how anchors and centers are proposed: "fps" (farthest points), "grid" (the point nearest to the middle
            of each cell of a regular grid) or "random" (the same draw for the same set).
        nested: the points of each set are in the order in which farthest-point sampling picked them, so that sampling
            them again picks the first ones.
    """

    sampling: str = "fps"
    nested: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLING:
            raise ValueError(f"sampling must be one of {SAMPLING}, got {self.sampling!r}")

    def __repr__(self) -> str:
        return "cloud"

    def check(self, points: int, num_sets: int) -> None:
        """Any number of points is allowed."""

    def points_per_set(self) -> None:
        """None: sets differ in their number of points."""

    def as_sparse(self, num_sets: int, device: torch.device) -> Cloud:
        return self

    def take(self, points: Slice | Int[Tensor, "K"], sets: Slice) -> Cloud:
        """The layout of some of the points, of some of the sets."""
        return Cloud(self.sampling)

    def cat(self, others: list[Cloud]) -> Cloud:
        """The layout of this batch followed by others."""
        return Cloud(self.sampling)

    def to_image(self, feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B1"], fill: float) -> NoReturn:
        raise ValueError("to_image: the points are not on a grid")

    def reduce(
        self,
        pos: Float[Tensor, "N D"],
        feat: Float[Tensor, "N C"],
        ptr: Int[Tensor, "B1"],
        weight: Float[Tensor, "A C K K"],
        bias: Float[Tensor, "A"] | None,
        *,
        stride: int,
        padding: int,
        keep_cells: str,
        absent: str = "zero",
    ) -> tuple[Float[Tensor, "Q D"], Float[Tensor, "Q A"], Int[Tensor, "B1"], Cloud]:
        """One point in stride^2 is kept as an anchor; its input is its kernel^2 nearest points, itself included.

        Their features are concatenated by distance and mapped linearly (Context Clusters, section 3.1); the first
        weight of the kernel, row by row, is the nearest point's. `padding`, `keep_cells` and `absent` have no effect.
        """
        anchor, new_ptr = self.anchors(pos, ptr, stride * stride)
        near = knn(pos, ptr, pos[anchor], new_ptr, weight.shape[-1] ** 2)  # (N', K)
        flat = weight.permute(0, 2, 3, 1).flatten(1)  # (Cout, K Cin), row-major
        rows = feat.index_select(0, near.flatten()).view(near.shape[0], -1)  # (N', K Cin)
        nested = self.nested if stride == 1 else self.sampling == "fps"  # a stride of one keeps the order
        return pos[anchor], F.linear(rows, flat, bias), new_ptr, Cloud(self.sampling, nested=nested)

    def pool(self, points: Points, coarse: Points, stride: int) -> tuple[Float[Tensor, "K C"], Bool[Tensor, "K"]]:
        """Mean features of the stride^2 nearest points of each anchor, itself included, and which of these means are
        over other points than all earlier ones; see `Grid.pool`."""
        near = knn(points.pos, points.ptr, coarse.pos, coarse.ptr, stride * stride)  # (K, n)
        slot = torch.arange(near.shape[1], device=near.device)
        size = points.ptr.diff()[ptr_to_batch(coarse.ptr, near.shape[0]), None]  # (K, 1)
        again = slot >= size  # sets of fewer than n points repeat them
        rows = points.feat.index_select(0, near.flatten()).view(*near.shape, -1)
        total = rows.masked_fill(again[..., None], 0).sum(1, dtype=at_least_float32(rows.dtype))
        mean = (total / size.clamp(max=near.shape[1])).to(rows.dtype)
        group = torch.unique(near.masked_fill(again, -1).sort(1).values, dim=0, return_inverse=True)[1]  # (K,)
        place = torch.arange(near.shape[0], device=near.device)
        first = place.scatter_reduce(0, group, place, "amin", include_self=False)
        return mean, first[group] == place

    def neighborhood(self, points: Points, kernel: int, *, absent: str = "zero") -> IndexNeighborhood:
        """The kernel^2 nearest points of each point, itself first, as in `reduce`. `absent` has no effect."""
        return IndexNeighborhood(knn(points.pos, points.ptr, points.pos, points.ptr, kernel**2))

    def lift(self, points: Points, coarse: Points, stride: int, *, mode: LiftMode = "bilinear") -> IndexLift:
        """The way back from `coarse` to `points`, see `pointmix.layouts.lift.point_lift`. `stride` has no effect."""
        return point_lift(points.pos, points.ptr, coarse.pos, coarse.ptr, mode)

    def anchors(
        self, pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], points_per_anchor: int
    ) -> tuple[Int[Tensor, "K"], Int[Tensor, "B1"]]:
        """One point in `points_per_anchor` of each set, rounded up ("grid": approximately), and their ptr."""
        if points_per_anchor == 1:
            return torch.arange(pos.shape[0], device=pos.device), ptr
        return _anchors(pos, ptr, points_per_anchor, self.sampling, self.nested)

    def plan(
        self,
        pos: Float[Tensor, "N D"],
        ptr: Int[Tensor, "B1"],
        windows_per_side: int,
        centers_per_side: int,
        *,
        pad: str | None = None,
        shift: bool = False,
        table_size: int | None = None,
        global_centers_per_side: int | None = None,
    ) -> IndexPlan:
        """Windows are equal boxes, `windows_per_side` along each dimension of each set's bounding box, without the
        empty ones.

        Each proposes M = centers_per_side^2 centers (centers_per_side^D for "grid"), whose features are the mean of
        the nearest ceil(n / M) of the n points in its window, as in average pooling on a grid. So does the whole set
        with `global_centers_per_side`. `shift` rolls the boxes by half of one, cyclically; with `pad`, centers that
        coincide are kept; `table_size` has no effect.
        """
        upper_centers = global_centers_per_side or 0
        order, counts, members, upper_members, window_set = _windows(
            pos, ptr, windows_per_side, centers_per_side, shift, upper_centers, self.sampling
        )
        plan = index_plan(order, counts, members, pos.dtype, distinct=pad is None)
        if global_centers_per_side is None:
            return plan
        members = upper_members[plan.partition_index]  # (R, L, G)
        assert plan.valid is not None
        upper = IndexUpperLevel.of(members, plan.valid, plan.row_window, window_set, ptr.numel() - 1, pos.dtype)
        return replace(plan, upper=upper)


@opaque(
    "cloud_anchors(Tensor pos, Tensor ptr, int points_per_anchor, str sampling, bool nested) -> (Tensor, Tensor)",
    lambda pos, ptr, points_per_anchor, sampling, nested: (ptr.new_empty(dynamic_size()), torch.empty_like(ptr)),
)
def _anchors(
    pos: Float[Tensor, "N D"], ptr: Int[Tensor, "B1"], points_per_anchor: int, sampling: str, nested: bool
) -> tuple[Int[Tensor, "K"], Int[Tensor, "B1"]]:
    """`Cloud.anchors`."""
    count = -(-ptr.diff() // points_per_anchor)
    if nested:
        new_ptr = counts_to_ptr(count)
        batch = ptr_to_batch(new_ptr, int(new_ptr[-1]))
        return torch.arange(len(batch), device=pos.device) + (ptr - new_ptr)[batch], new_ptr
    if sampling == "random":
        return random_sampling(ptr, ratio=1 / points_per_anchor, seed=0)
    if sampling == "fps":
        return farthest_point_sampling(pos, ptr, ratio=1 / points_per_anchor)
    batch = ptr_to_batch(ptr, len(pos))
    place = _in_box(pos, batch, len(count))
    return grid_sampling(place * _sides(place, batch, count)[batch, None], ptr, 1.0)


def _fake_windows(
    pos: Tensor,
    ptr: Tensor,
    windows_per_side: int,
    centers_per_side: int,
    shift: bool,
    upper_centers: int,
    sampling: str,
) -> tuple[Tensor, ...]:
    """The shapes of what `_windows` returns."""
    power, points, windows = pos.shape[1] if sampling == "grid" else 2, pos.shape[0], dynamic_size()
    members, upper = (ptr.new_empty(points, m**power, dtype=torch.bool) for m in (centers_per_side, upper_centers))
    return ptr.new_empty(points), ptr.new_empty(windows), members, upper, ptr.new_empty(windows)


@opaque(
    "cloud_windows(Tensor pos, Tensor ptr, int windows_per_side, int centers_per_side, bool shift, int upper_centers, "
    "str sampling) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _fake_windows,
)
def _windows(
    pos: Float[Tensor, "N D"],
    ptr: Int[Tensor, "B1"],
    windows_per_side: int,
    centers_per_side: int,
    shift: bool,
    upper_centers: int,
    sampling: str,
) -> tuple[Int[Tensor, "N"], Int[Tensor, "S"], Bool[Tensor, "N M"], Bool[Tensor, "N G"], Int[Tensor, "S"]]:
    """Of `Cloud.plan`: the points in window order, the number of points of each window, which centers of its window
    and of its set each point is pooled into (in window order), and the set of each window.

    `upper_centers` are along each side of a set, 0 for none.
    """
    batch = ptr_to_batch(ptr, len(pos))
    place = _in_box(pos, batch, ptr.numel() - 1)  # (N, D), in [0, 1)
    box = (place * windows_per_side + 0.5) % windows_per_side if shift else place * windows_per_side
    window = batch
    for axis in box.t():  # numbered anew with each axis, so that no number of dimensions overflows
        window = torch.unique(window * windows_per_side + axis.long(), return_inverse=True)[1]
    counts = torch.bincount(window)
    order = torch.argsort(window, stable=True)
    window, x, batch = window[order], pos.detach()[order].to(box.dtype), batch[order]
    members = _members(x, box[order].frac(), window, counts, centers_per_side, sampling)
    window_set = batch[counts.cumsum(0) - counts]  # windows are in the order of their sets
    if not upper_centers:
        return order, counts, members, members[:, :0], window_set
    upper_members = _members(x, place[order], batch, ptr.diff(), upper_centers, sampling)
    return order, counts, members, upper_members, window_set


def _members(
    x: Float[Tensor, "N D"],
    place: Float[Tensor, "N D"],
    part: Int[Tensor, "N"],
    counts: Int[Tensor, "S"],
    centers_per_side: int,
    sampling: str,
) -> Bool[Tensor, "N M"]:
    """Which centers of its part (a window or a set) each point is pooled into. Points are sorted by part, each at
    `place` in the bounding box of its part."""
    first = counts.cumsum(0) - counts  # (S,)
    if sampling == "grid":  # in units of the part
        x = place
        middle = (torch.arange(centers_per_side, device=x.device, dtype=x.dtype) + 0.5) / centers_per_side
        proposal = torch.cartesian_prod(*[middle] * x.shape[1]).view(1, -1, x.shape[1])  # (1, M, D)
        proposal = proposal.expand(len(counts), -1, -1)
    elif sampling == "fps":
        proposal = x[_farthest(x, part, counts, centers_per_side**2)]  # (S, M, D)
    else:
        nth = torch.arange(centers_per_side**2, device=x.device) * counts[:, None] // centers_per_side**2  # (S, M)
        proposal = x[random_sampling(counts_to_ptr(counts), ratio=1.0, seed=0)[0][first[:, None] + nth]]
    d = squared_distance(x.t()[..., None], proposal.movedim(2, 0)[:, part])  # (N, M)
    return _nearest(d, part, counts)


@opaque(
    "canonical_order(Tensor pos, Tensor feat, Tensor ptr) -> Tensor",
    lambda pos, feat, ptr: ptr.new_empty(pos.shape[0]),
)
def canonical_order(pos: Float[Tensor, "N D"], feat: Float[Tensor, "N C"], ptr: Int[Tensor, "B1"]) -> Int[Tensor, "N"]:
    """The points of each set sorted by position, then by features.

    The order decides where sampling starts and how ties between equal distances are broken; so results must not depend
    on the order in which a file stores the points.
    """
    keys = [ptr_to_batch(ptr, len(pos)), *pos.t().contiguous()]
    order = _lexsort(keys)
    coincide = torch.ones_like(order[1:], dtype=torch.bool)
    for key in keys:
        here = key[order]
        coincide &= here[1:] == here[:-1]
    return _lexsort([*keys, *feat.t()]) if coincide.any() else order


def _lexsort(keys: list[Tensor]) -> Int[Tensor, "N"]:
    """Indices that sort by the first key, ties by the second key, and so on."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in reversed(keys):
        order = order[_as_integers(key)[order].argsort(stable=True)]
    return order


def _as_integers(key: Shaped[Tensor, "N"]) -> Int[Tensor, "N"]:
    """Integers in the order of the keys, equal where keys are: torch sorts them 8 times as fast as floats on a CPU."""
    if not key.is_floating_point():
        return key
    key = key.to(at_least_float32(key.dtype)) + 0.0  # -0 becomes 0
    bits = key.view(torch.int64 if key.dtype == torch.float64 else torch.int32)
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)


def _in_box(pos: Float[Tensor, "N D"], batch: Int[Tensor, "N"], num_sets: int) -> Float[Tensor, "N D"]:
    """Position of each point in the bounding box of its set, in [0, 1); 0 along a side without extent. float64."""
    pos = pos.detach().double()
    index = batch[:, None].expand_as(pos)
    low = pos.new_full((num_sets, pos.shape[1]), torch.inf).scatter_reduce(0, index, pos, "amin")
    high = pos.new_full((num_sets, pos.shape[1]), -torch.inf).scatter_reduce(0, index, pos, "amax")
    extent = high - low
    place = (pos - low[batch]) / torch.where(extent > 0, extent, 1.0)[batch]
    return place.clamp(max=1 - torch.finfo(place.dtype).eps)


def _sides(place: Float[Tensor, "N D"], batch: Int[Tensor, "N"], count: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Number of cells along each side of each set's box such that about `count` of the cells hold a point.

    count^(1/D) where points fill the box. Scans are surfaces and leave most of it empty, so the number is corrected as
    if the occupied cells grew with its square.
    """
    dims = place.shape[1]
    largest = float(2 ** (48 // dims))  # so that cell numbers fit an int64
    side = count.double().pow(1 / dims).round()
    for _ in range(8):
        key = batch
        for axis in (place * side[batch, None]).t():
            key = key * int(largest) + axis.long()
        occupied = torch.bincount(torch.unique(key) // int(largest) ** dims, minlength=len(count))  # (B,)
        ratio = count / occupied
        near = (ratio - 1).abs() < 0.1
        if near.all():
            break
        side = torch.where(near, side, (side * ratio.sqrt()).clamp(1, largest))
    return side


def _farthest(
    x: Float[Tensor, "N D"], window: Int[Tensor, "N"], counts: Int[Tensor, "S"], num_samples: int
) -> Int[Tensor, "S M"]:
    """Farthest points of every window, starting at its first point; the first point again where points run out."""
    place = torch.arange(len(x), device=x.device)
    first = counts.cumsum(0) - counts
    pick, picks = first, []
    d = x.new_full((len(x),), torch.inf)
    for _ in range(num_samples):
        picks.append(pick)
        d = torch.minimum(d, squared_distance(x.t(), x[pick[window]].t()))
        far = d.new_zeros(len(counts)).scatter_reduce(0, window, d, "amax")
        last = len(x) - 1
        # where points run out all d are 0, so the first place is picked again
        pick = torch.full_like(pick, last).scatter_reduce(0, window, place.where(d == far[window], last), "amin")
    return torch.stack(picks, dim=1)


def _nearest(d: Float[Tensor, "N M"], window: Int[Tensor, "N"], counts: Int[Tensor, "S"]) -> Bool[Tensor, "N M"]:
    """Which of the n points of a window are among the ceil(n / M) nearest to each center; the first ones in a tie."""
    first, place = (counts.cumsum(0) - counts)[window], torch.arange(len(d), device=d.device)
    nearest = place - first < -(-counts // d.shape[1])[window]  # of points window by window, the nearest first
    columns = [torch.empty_like(nearest).index_copy_(0, _lexsort([window, to]), nearest) for to in d.t().contiguous()]
    return torch.stack(columns, dim=1)


pytree.register_pytree_node(
    Cloud,
    lambda c: ([], (c.sampling, c.nested)),
    lambda _, context: Cloud(*context),
    serialized_type_name="pointmix.Cloud",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
    flatten_with_keys_fn=lambda c: ([], (c.sampling, c.nested)),
)
