"""HCFormer's mixer: points gather around the centers of their window, windows around the centers of their set."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.plan import IndexPlan, Plan
from pointmix.nn.curvature import Curvature
from pointmix.nn.mixers.context import heads_first, layout_of, numbered
from pointmix.nn.norm import PointNorm, Sets
from pointmix.ops.clustering import assign_soft, cluster_soft, cluster_soft_reference, fused
from pointmix.ops.context import context_soft
from pointmix.ops.precision import without_float16
from pointmix.ops.query_length import query_length
from pointmix.ops.similarity import cosine, negative_distance
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs
from pointmix.utils.ranges import COUNT, POSITIVE, check_choice

GEOMETRIES = ("euclidean", "hyperbolic")


class ClusterMixer(nn.Module):
    """Soft clustering in windows and, where the plan has a top, of the windows themselves (HCFormer, section 3.3).

    Both branches share queries and values. A window is one point of the upper branch, the mean of its points; what
    comes back for it goes to all of them. The branches are concatenated and mapped linearly.

    Args:
        dim: channels in and out.
        heads, head_dim: E heads of D channels for queries and values.
        centers: M, centers of a window.
        table: side T of the bias table (E, M, T, T) over the whole lattice, None for none. Clouds do not read it.
        top: G, centers of a set, if windows are clustered too.
        top_table: side F of the bias table (E, G, F, F) over the windows of a lattice, None for none.
        geometry, top_geometry: similarity of both branches: "euclidean" is the cosine, "hyperbolic" minus the distance.
        curvature: kappa of hyperbolic branches; `learn_curvature` makes it a parameter.
        expmap: "proper", or "released" as in the authors' code, see `negative_distance`.
        alpha: "free", or "softplus" for scales that stay positive.
        offsets: dimensions of a position whose offset from a center gives a bias through a small network, for any
            layout; None for none. Ours, not in the paper.
        cat_norm: normalize the concatenated branches, as equation 10 says and the released code does not.
        reference: run the reference form. For tests and benchmarks.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        centers: int,
        table: int | None = None,
        top: int | None = None,
        top_table: int | None = None,
        geometry: str = "euclidean",
        top_geometry: str = "hyperbolic",
        curvature: float = 1.0,
        learn_curvature: bool = False,
        expmap: str = "proper",
        alpha: str = "free",
        offsets: int | None = None,
        cat_norm: bool = False,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dim=dim, heads=heads, head_dim=head_dim, centers=centers)
        unset = dict(table=table, top=top, top_table=top_table, offsets=offsets)
        COUNT.check(**{name: value for name, value in unset.items() if value is not None})
        POSITIVE.check(curvature=curvature)
        check_choice(known=GEOMETRIES, geometry=geometry, top_geometry=top_geometry)
        check_choice(known=("proper", "released"), expmap=expmap)
        check_choice(known=("free", "softplus"), alpha=alpha)
        self.heads, self.head_dim, self.centers, self.reference = heads, head_dim, centers, reference
        self.geometry, self.top_geometry, self.expmap, self.alpha = geometry, top_geometry, expmap, alpha
        width = heads * head_dim
        branches = 1 if top is None else 2
        self.qv = nn.Linear(dim, 2 * width)
        self.proj = nn.Linear(branches * width, dim)
        self.norm = PointNorm(branches * width) if cat_norm else None
        bent = geometry == "hyperbolic" or (top is not None and top_geometry == "hyperbolic")
        self.curvature = Curvature(curvature, learned=learn_curvature and bent)
        start = 1.0 if alpha == "free" else 0.5413248546129181  # softplus of this is one
        self.alpha_patch = nn.Parameter(torch.full((1,), start))
        self.bias_patch = None if table is None else nn.Parameter(torch.zeros(heads, centers, table, table))
        self.alpha_window = None if top is None else nn.Parameter(torch.full((1,), start))
        tables = top is not None and top_table is not None
        self.bias_window = nn.Parameter(torch.zeros(heads, top, top_table, top_table)) if tables else None
        self.offsets = None
        if offsets is not None:
            self.offsets = nn.Sequential(nn.Linear(offsets, 16), nn.GELU(), nn.Linear(16, heads, bias=False))

    @without_float16
    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: Sets | None = None) -> Float[Tensor, "N C"]:
        rows = plan.split(x)
        pooled = plan.pool(rows)  # (S, M, C)
        over = None if self.alpha_window is None else self.windows(rows, plan)  # (S, ED)
        bias, alpha = self.bias(plan), self.scale(self.alpha_patch)
        if self.at_centers(x.shape[1]):
            base = self.base(over, pooled.shape[0])
            weights = self.qv.weight, self.qv.bias, self.proj.weight[:, : self.heads * self.head_dim], base, alpha, bias
            size = plan.split(self.query_length(x))
            return plan.merge(context_soft(rows, pooled, size, *weights, heads=self.heads, **layout_of(plan)))
        qv = self.qv(x)
        centers = plan.pool(plan.split(qv)) if self.reference else self.qv(pooled)
        kernel = not self.reference and fused("cluster_soft", qv, self.centers, self.head_dim)
        if kernel and plan.packed is not None:
            bias = None if bias is None else packed(bias, plan)
            plan = plan.packed
        copy = plan.row_window is not None or not kernel
        (q, v), (c, cv) = (heads_first(t, self.heads, copy) for t in (plan.split(qv), centers))
        cluster = cluster_soft_reference if self.reference else cluster_soft
        similarity = self.similarity(self.geometry)
        o = cluster(q, v, c, cv, alpha, bias, similarity=similarity, **layout_of(plan)).flatten(-2)
        if over is not None and self.norm is None and not self.reference:
            o = F.linear(o, self.proj.weight[:, : o.shape[-1]])
            return plan.merge(o + plan.spread(self.base(over, pooled.shape[0])))
        if over is not None:
            o = torch.cat([o, plan.spread(over.to(o.dtype)).expand_as(o)], -1)  # (R, L, 2ED)
        o = plan.merge(o)
        return self.proj(o if self.norm is None else self.norm(o, sets))

    def base(self, over: Float[Tensor, "S ED"] | None, windows: int) -> Float[Tensor, "S C"]:
        """What the projection adds for each window: the map of a concatenation is a sum of maps."""
        if over is None:
            return self.proj.bias.expand(windows, -1)
        return F.linear(over, self.proj.weight[:, self.heads * self.head_dim :], self.proj.bias)

    def windows(self, rows: Float[Tensor, "R L C"], plan: Plan) -> Float[Tensor, "S ED"]:
        """What the upper branch gives each window. Means and the linear map change places, but not in the twin."""
        top, rows = plan.top, self.qv(rows) if self.reference else rows
        points, centers = top.split(top.mean(rows)), top.pool(rows)
        (q, v), (c, cv) = (heads_first(t if self.reference else self.qv(t), self.heads) for t in (points, centers))
        bias = None if self.bias_window is None or top.taps is None else top.taps.read(self.bias_window)
        cluster = cluster_soft_reference if self.reference else cluster_soft
        o = cluster(
            *(q, v, c, cv, self.scale(self.alpha_window), bias),
            similarity=self.similarity(self.top_geometry),
            valid=top.valid,
            center_valid=top.center_valid,
        )
        return top.merge(o.flatten(2))

    def at_centers(self, dim: int) -> bool:
        """Whether values and projection take fewer operations at the centers than at the points. The configuration
        decides, not the points, so that a set's rounding never depends on its batch-mates. A kernel that keeps both on
        the chip goes before."""
        few = 3 * self.centers * dim <= self.head_dim * (2 * dim + 3 * self.centers)
        few = few and not self.reference and self.geometry == "euclidean" and self.norm is None
        return few and not fused("cluster_soft", self.qv.weight, self.centers, self.head_dim)

    def bias(self, plan: Plan) -> Float[Tensor, "R M E L"] | None:
        """Of each center and slot, by the place on the lattice and by the offset from the center."""
        table = None if self.bias_patch is None or plan.taps is None else plan.taps.read(self.bias_patch)
        if self.offsets is None:
            return table
        moved = self.offsets(plan.offsets.to(self.qv.weight.dtype)).movedim(-1, 2)  # (R, M, L, E) -> (R, M, E, L)
        return moved if table is None else (moved.unflatten(0, (-1, len(table))) + table).flatten(0, 1)

    def scale(self, alpha: Float[Tensor, "1"]) -> Float[Tensor, "1"]:
        return alpha if self.alpha == "free" else F.softplus(alpha)

    def similarity(self, geometry: str):
        if geometry == "euclidean":
            return cosine
        return partial(negative_distance, kappa=self.curvature(), released=self.expmap == "released")

    def query_length(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N E"]:
        """Length of each point's query in each head."""
        return query_length(x, self.qv.weight.chunk(2)[0], self.qv.bias.chunk(2)[0], self.heads)

    @without_float16
    def assignment(self, x: Float[Tensor, "N C"], plan: Plan) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
        """Index of the center that has most of each point, counted over all windows, and the point's weight there."""
        rows = plan.split(x)
        (q, _), (c, _) = (heads_first(self.qv(t), self.heads) for t in (rows, plan.pool(rows)))
        layout = {"row_window": plan.row_window, "center_valid": plan.center_valid}
        similarity = self.similarity(self.geometry)
        a = assign_soft(q, c, self.scale(self.alpha_patch), self.bias(plan), similarity=similarity, **layout)
        weight, center = a.max(2)  # (R, E, L)
        return numbered(center, weight, c.shape[1], plan)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of the equations in matrix form: similarity, aggregate and dispatch are a product each, in both
        branches; the reflected points of a lattice are mapped too. Of the upper branch the means of the windows, its
        centers and the way back to the points count as pooling does."""
        width = self.heads * self.head_dim
        macs = linear_macs(size.slots, self.qv) + linear_macs(size.points, self.proj)
        macs += Macs(products=3 * size.slots * size.centers * width, other=2 * size.slots * width)
        if self.alpha_window is not None:
            macs += Macs(products=3 * size.windows * size.global_centers * width, other=5 * size.slots * width)
        if self.offsets is not None:
            macs += linear_macs(size.slots * size.centers, self.offsets[0], self.offsets[2])
        return macs if self.norm is None else macs + norm_macs(size.points, self.proj.in_features)


def packed(bias: Float[Tensor, "R M E L"], plan: IndexPlan) -> Float[Tensor, "M E N"]:
    """The bias of each point where it lies."""
    of_points = plan.merge(bias.permute(0, 3, 1, 2).flatten(2))  # (N, M E)
    return of_points.unflatten(1, bias.shape[1:3]).permute(1, 2, 0)
