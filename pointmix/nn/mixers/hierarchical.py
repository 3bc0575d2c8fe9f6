"""The mixer of HCFormer: soft clustering of the points of each window, and of the windows of each set."""

from __future__ import annotations

from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.plan import IndexPlan, PackedPlan, Plan
from pointmix.layouts.table_lookup import TableLookup
from pointmix.layouts.upper import UpperLevel
from pointmix.nn.curvature import Curvature
from pointmix.nn.mixers.clustering import (
    Form,
    fewer_at_centers,
    global_center_index,
    row_args,
    split_heads,
    window_args,
)
from pointmix.nn.norm import PointNorm, SetIndex
from pointmix.ops.clustering import assign_soft, cluster_soft, cluster_soft_reference, fused
from pointmix.ops.clustering.products import Similarity
from pointmix.ops.context import context_soft
from pointmix.ops.dispatch import has_tangent
from pointmix.ops.precision import without_float16
from pointmix.ops.query_length import query_length
from pointmix.ops.similarity import alone, cosine, negative_distance
from pointmix.profile.macs import Macs, Size, linear_macs, norm_macs
from pointmix.utils.ranges import COUNT, POSITIVE, check_choice

GEOMETRIES = ("euclidean", "hyperbolic")


@runtime_checkable
class _Cluster(Protocol):
    """`cluster_soft` or its reference form."""

    def __call__(
        self,
        q: Tensor,
        v: Tensor,
        c: Tensor,
        cv: Tensor,
        alpha: Tensor,
        bias: Tensor | None,
        *,
        similarity: Similarity,
        valid: Tensor | None,
        center_valid: Tensor | None,
    ) -> Tensor: ...


class ClusterMixer(nn.Module):
    """Soft clustering in windows and, if the plan has an upper level, of the windows (HCFormer, section 3.3).

    Both branches share queries and values. In the upper branch each window is one point, the mean of its points, and
    its output is broadcast to all of them. The branches are concatenated and mapped linearly.

    Args:
        dim: channels in and out.
        heads, head_dim: E heads of D channels for queries and values.
        centers: M, centers of a window.
        table_size: side T of the bias table (E, M, T, T) over the whole grid, None for none. Clouds do not read it.
        global_centers: G, centers of a set in the upper branch, None without it.
        upper_table_size: side F of the bias table (E, G, F, F) over the windows of a grid, None for none.
        geometry, upper_geometry: similarity in each branch: "euclidean" for the cosine, "hyperbolic" for minus the
            distance.
        curvature: kappa of hyperbolic branches; `learn_curvature` makes it a parameter.
        expmap: "proper", or "released" as in the authors' code, see `negative_distance`.
        alpha: "free", or "softplus" for scales that stay positive.
        relative_pos_dims: dimensions D of the position of a point relative to a center, from which a small network
            computes a bias, for any layout; None for none. Ours, not in the paper.
        cat_norm: normalize the concatenated branches, as equation 10 says and the released code does not.
        reference: run the reference form. For tests and benchmarks.
    """

    soft = True  # points exchange with all centers of their window

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        centers: int,
        table_size: int | None = None,
        global_centers: int | None = None,
        upper_table_size: int | None = None,
        geometry: str = "euclidean",
        upper_geometry: str = "hyperbolic",
        curvature: float = 1.0,
        learn_curvature: bool = False,
        expmap: str = "proper",
        alpha: str = "free",
        relative_pos_dims: int | None = None,
        cat_norm: bool = False,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dim=dim, heads=heads, head_dim=head_dim, centers=centers)
        optional = dict(table_size=table_size, global_centers=global_centers, upper_table_size=upper_table_size)
        optional |= dict(relative_pos_dims=relative_pos_dims)
        COUNT.check(**{name: value for name, value in optional.items() if value is not None})
        POSITIVE.check(curvature=curvature)
        check_choice(known=GEOMETRIES, geometry=geometry, upper_geometry=upper_geometry)
        check_choice(known=("proper", "released"), expmap=expmap)
        check_choice(known=("free", "softplus"), alpha=alpha)
        self.heads, self.head_dim, self.centers, self.reference = heads, head_dim, centers, reference
        self.geometry, self.upper_geometry, self.expmap, self.alpha = geometry, upper_geometry, expmap, alpha
        width = heads * head_dim
        branches = 1 if global_centers is None else 2
        self.qv = nn.Linear(dim, 2 * width)
        self.proj = nn.Linear(branches * width, dim)
        self.norm = PointNorm(branches * width) if cat_norm else None
        hyperbolic = geometry == "hyperbolic" or (global_centers is not None and upper_geometry == "hyperbolic")
        self.curvature = Curvature(curvature, learned=learn_curvature and hyperbolic)
        start = 1.0 if alpha == "free" else 0.5413248546129181  # its softplus is one
        self.alpha_patch = nn.Parameter(torch.full((1,), start))
        self.bias_patch = self._table(centers, table_size)
        self.alpha_window = None if global_centers is None else nn.Parameter(torch.full((1,), start))
        self.bias_window = self._table(global_centers, upper_table_size)
        self.offsets = None  # the name in state dicts
        if relative_pos_dims is not None:
            self.offsets = nn.Sequential(nn.Linear(relative_pos_dims, 16), nn.GELU(), nn.Linear(16, heads, bias=False))

    def _table(self, centers: int | None, size: int | None) -> nn.Parameter | None:
        if centers is None or size is None:
            return None
        return nn.Parameter(torch.zeros(self.heads, centers, size, size))

    def form(self, x: Float[Tensor, "N C"]) -> Form:
        """The form that `forward` takes."""
        if self.reference:
            return Form.REFERENCE
        kernel_exists = fused("cluster_soft", self.qv.weight, self.centers, self.head_dim)
        if kernel_exists and not has_tangent(x, *self.parameters()):  # kernels have no forward-mode derivatives
            return Form.FUSED_KERNEL
        few = fewer_at_centers(self.centers, self.qv.in_features, self.head_dim)
        linear = self.geometry == "euclidean" and self.norm is None
        return Form.AT_CENTERS if few and linear else Form.PRODUCTS

    @without_float16
    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex | None = None) -> Float[Tensor, "N C"]:
        form = self.form(x)
        if form is Form.REFERENCE:
            return self._reference(x, plan, sets)
        if form is Form.AT_CENTERS:
            return self._at_centers(x, plan)
        return self._at_points(x, plan, sets, form)

    def _reference(self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex | None) -> Float[Tensor, "N C"]:
        rows = plan.window_partition(self.qv(x))
        (q, v), (c, cv) = (split_heads(t, self.heads) for t in (rows, plan.pool_centers(rows)))
        similarity, bias = self.similarity(self.geometry), self.bias(plan)
        args = q, v, c, cv, self.scale(self.alpha_patch), bias
        cluster = cluster_soft_reference
        o = cluster(*args, similarity=similarity, **row_args(plan)).flatten(-2)
        if self.alpha_window is not None:
            upper = plan.broadcast(self._upper(*self._upper_means(rows, plan), plan, cluster))
            o = torch.cat([o, upper.to(o.dtype).expand_as(o)], -1)  # (R, L, 2ED)
        o = plan.window_reverse(o)
        return self.proj(o if self.norm is None else self.norm(o, sets))

    def _at_centers(self, x: Float[Tensor, "N C"], plan: Plan) -> Float[Tensor, "N C"]:
        rows = plan.window_partition(x)
        pooled, length = plan.pool_centers(rows), plan.window_partition(self._query_length(x))
        base = self._upper_projected(self.upper(rows, plan), pooled.shape[0])
        weights = self.qv.weight, self.qv.bias, self.proj.weight[:, : self.heads * self.head_dim], base
        args = rows, pooled, length, *weights, self.scale(self.alpha_patch), self.bias(plan)
        return plan.window_reverse(context_soft(*args, heads=self.heads, **row_args(plan)))

    def _at_points(
        self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex | None, form: Form
    ) -> Float[Tensor, "N C"]:
        rows = plan.window_partition(x)
        pooled, upper, bias = plan.pool_centers(rows), self.upper(rows, plan), self.bias(plan)
        windows: Plan | PackedPlan = plan
        if form is Form.FUSED_KERNEL and isinstance(plan, IndexPlan) and plan.packed is not None:
            bias, windows = None if bias is None else packed_bias(bias, plan), plan.packed
        copy = windows.row_window is not None or form is not Form.FUSED_KERNEL
        points = windows.window_partition(self.qv(x))
        (q, v), (c, cv) = (split_heads(t, self.heads, copy) for t in (points, self.qv(pooled)))
        args = q, v, c, cv, self.scale(self.alpha_patch), bias
        o = cluster_soft(*args, similarity=self.similarity(self.geometry), **window_args(windows)).flatten(-2)
        if upper is not None and self.norm is None:
            o = F.linear(o, self.proj.weight[:, : o.shape[-1]])
            return windows.window_reverse(o + windows.broadcast(self._upper_projected(upper, pooled.shape[0])))
        if upper is not None:
            o = torch.cat([o, windows.broadcast(upper.to(o.dtype)).expand_as(o)], -1)  # (R, L, 2ED)
        o = windows.window_reverse(o)
        return self.proj(o if self.norm is None else self.norm(o, sets))

    def upper(self, rows: Float[Tensor, "R L C"], plan: Plan) -> Float[Tensor, "S ED"] | None:
        """Output of the upper branch for each window, None without it. Means are taken before the linear map, with
        which they commute."""
        if self.alpha_window is None:
            return None
        means, centers = self._upper_means(rows, plan)
        level = _upper_level(plan)
        if level.centers == 1 and not torch.is_grad_enabled():  # training gives the other parameters gradients of zero
            return level.set_reverse(self._upper_alone(means, centers, level))
        return self._upper(self.qv(means), self.qv(centers), plan, cluster_soft)

    def _upper_means(
        self, rows: Float[Tensor, "R L C"], plan: Plan
    ) -> tuple[Float[Tensor, "B K C"], Float[Tensor, "B G C"]]:
        """The means of the windows of each set, and of the points of each of its centers."""
        upper = _upper_level(plan)
        return upper.set_partition(upper.mean(rows)), upper.pool_centers(rows)

    def _upper(
        self,
        means: Float[Tensor, "B K QV"],
        centers: Float[Tensor, "B G QV"],
        plan: Plan,
        cluster: _Cluster,
    ) -> Float[Tensor, "S ED"]:
        """The upper branch from the queries and values of the means of windows and of the global centers."""
        upper = _upper_level(plan)
        (q, v), (c, cv) = (split_heads(t, self.heads) for t in (means, centers))
        assert self.alpha_window is not None
        similarity = self.similarity(self.upper_geometry)
        if upper.centers == 1 and cluster is cluster_soft and self.curvature.log_kappa is None:
            similarity = alone  # a learned curvature needs a gradient, even if it is zero
        o = cluster(
            *(q, v, c, cv, self.scale(self.alpha_window), _read(self.bias_window, upper.table_lookup)),
            similarity=similarity,
            valid=upper.valid,
            center_valid=upper.center_valid,
        )
        return upper.set_reverse(o.flatten(2))

    def _upper_alone(
        self, means: Float[Tensor, "B K C"], centers: Float[Tensor, "B 1 C"], upper: UpperLevel
    ) -> Float[Tensor, "B K ED"]:
        """`_upper` with a single global center, where every weight is one. The mean comes before the linear map."""
        total: Tensor = means.sum(1, keepdim=True)
        count: int | Tensor = means.shape[1]
        if upper.valid is not None:
            total, count = upper.valid.to(means.dtype).unsqueeze(1) @ means, upper.valid.sum(1).view(-1, 1, 1)
        wv, bv = self.qv.weight.chunk(2)[1], self.qv.bias.chunk(2)[1]
        mean = ((centers + total) / (1 + count)).to(means.dtype)
        return F.linear(mean, wv, bv).expand(-1, means.shape[1], -1)

    def _upper_projected(self, upper: Float[Tensor, "S ED"] | None, windows: int) -> Float[Tensor, "S C"]:
        """The upper branch's part of the projection, with its bias: the map of a concatenation is a sum of maps."""
        if upper is None:
            return self.proj.bias.expand(windows, -1)
        return F.linear(upper, self.proj.weight[:, self.heads * self.head_dim :], self.proj.bias)

    def bias(self, plan: Plan) -> Float[Tensor, "R M E L"] | None:
        """The bias of each center and slot: by the position on the grid and by the position relative to the center."""
        table = _read(self.bias_patch, plan.table_lookup)
        if self.offsets is None:
            return table
        assert plan.relative_pos is not None
        relative_pos = plan.relative_pos.to(self.qv.weight.dtype)
        bias = self.offsets(relative_pos).movedim(-1, 2)  # (R, M, L, E) -> (R, M, E, L)
        return bias if table is None else (bias.unflatten(0, (-1, len(table))) + table).flatten(0, 1)

    def scale(self, alpha: Float[Tensor, "1"]) -> Float[Tensor, "1"]:
        """The factor of the similarity."""
        return alpha if self.alpha == "free" else F.softplus(alpha)

    def similarity(self, geometry: str) -> Similarity:
        if geometry == "euclidean":
            return cosine
        return partial(negative_distance, kappa=self.curvature(), released=self.expmap == "released")

    def _query_length(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N E"]:
        """Length of each point's query in each head."""
        return query_length(x, self.qv.weight.chunk(2)[0], self.qv.bias.chunk(2)[0], self.heads)

    @without_float16
    def assignment(self, x: Float[Tensor, "N C"], plan: Plan) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
        """Index of the center with the largest weight for each point, counted over all windows, and that weight."""
        rows = plan.window_partition(x)
        (q, _), (c, _) = (split_heads(self.qv(t), self.heads) for t in (rows, plan.pool_centers(rows)))
        layout = {"row_window": plan.row_window, "center_valid": plan.center_valid}
        similarity = self.similarity(self.geometry)
        a = assign_soft(q, c, self.scale(self.alpha_patch), self.bias(plan), similarity=similarity, **layout)
        weight, center = a.max(2)  # (R, E, L)
        return global_center_index(center, weight, plan)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of the equations in matrix form: similarity, aggregate and dispatch are one product each, in
        both branches. Copies by reflection padding are mapped too. In the upper branch the means of the windows, its
        centers and the broadcast to the points count as pooling does."""
        width = self.heads * self.head_dim
        macs = linear_macs(size.slots, self.qv) + linear_macs(size.points, self.proj)
        macs += Macs(products=3 * size.slots * size.centers * width, other=2 * size.slots * width)
        if self.alpha_window is not None:
            macs += Macs(products=3 * size.windows * size.global_centers * width, other=5 * size.slots * width)
        if self.offsets is not None:
            layers = [layer for layer in self.offsets if isinstance(layer, nn.Linear)]
            macs += linear_macs(size.slots * size.centers, *layers)
        return macs if self.norm is None else macs + norm_macs(size.points, self.proj.in_features)


def _upper_level(plan: Plan) -> UpperLevel:
    if plan.upper is None:
        raise ValueError("the mixer has an upper branch, but the plan has no upper level (global_centers_per_side)")
    return plan.upper


def _read(table: Tensor | None, lookup: TableLookup | None) -> Float[Tensor, "R M E L"] | None:
    return None if table is None or lookup is None else lookup.read(table)


def packed_bias(bias: Float[Tensor, "R M E L"], plan: IndexPlan) -> Float[Tensor, "M E N"]:
    """The bias of each point, in window order instead of rows."""
    of_points = plan.window_reverse(bias.permute(0, 3, 1, 2).flatten(2))  # (N, M E)
    return of_points.unflatten(1, bias.shape[1:3]).permute(1, 2, 0)
