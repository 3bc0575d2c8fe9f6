"""Mixers: the only spatial operation of a network."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.plan import PackedPlan, Plan
from pointmix.nn.norm import Sets
from pointmix.ops.clustering import (
    DENOMINATORS,
    assign_hard,
    cluster_hard,
    cluster_hard_reference,
    fused,
    update_centers,
)
from pointmix.ops.context import context_cluster, nearest
from pointmix.ops.dispatch import choose
from pointmix.ops.precision import without_float16
from pointmix.ops.query_length import query_length
from pointmix.profile.macs import Macs, Size, linear_macs
from pointmix.utils.ranges import COUNT, NATURAL, check_choice


class ContextCluster(nn.Module):
    """Hard context clustering over the windows of a plan (Context Clusters, section 3.2).

    Args:
        dim: channels in and out.
        heads, head_dim: E heads of D channels for queries and values.
        denominator: "weights" or "count", see `cluster_hard`.
        unweighted: points enter a center's aggregate with weight one, see `cluster_hard`.
        center_updates: how often the centers move to their clusters before the final assignment (dynamic centers).
        reference: run the reference form, which forms a tensor of M x L x D. For tests and benchmarks.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        denominator: str = "weights",
        unweighted: bool = False,
        center_updates: int = 0,
        reference: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(dim=dim, heads=heads, head_dim=head_dim)
        NATURAL.check(center_updates=center_updates)
        check_choice(known=DENOMINATORS, denominator=denominator)
        self.heads, self.head_dim = heads, head_dim
        self.denominator, self.unweighted, self.center_updates = denominator, unweighted, center_updates
        self.reference = reference
        self.qv = nn.Linear(dim, 2 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, dim)
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    @without_float16
    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: Sets | None = None) -> Float[Tensor, "N C"]:
        rules = {"denominator": self.denominator, "unweighted": self.unweighted}
        weights = (self.qv.weight, self.qv.bias, self.proj.weight, self.proj.bias, self.alpha, self.beta)
        if (packed := plan.packed) is not None and self.at_centers(packed.members.shape[1]):
            if kernel := choose("context_cluster", x, *weights):
                windows = packed.ptr, packed.members, packed.center_valid
                return kernel(x, *windows, *weights, heads=self.heads, **rules)
        rows = plan.split(x)
        pooled = plan.pool(rows)
        if self.at_centers(pooled.shape[1]):
            size = self.query_length(x, plan)
            rules |= layout_of(plan)
            return plan.merge(context_cluster(rows, pooled, size, *weights, heads=self.heads, **rules))
        kernel = not self.reference and fused("cluster_hard", self.qv.weight, pooled.shape[1], self.head_dim)
        if kernel and not self.center_updates and plan.packed is not None:
            plan = plan.packed
        q, v, c, cv = self.project(x, pooled, plan)
        cluster = cluster_hard_reference if self.reference else cluster_hard
        o = cluster(q, v, c, cv, self.alpha, self.beta, **rules, **layout_of(plan))
        return self.proj(plan.merge(o.flatten(-2)))

    def at_centers(self, centers: int) -> bool:
        """Whether so few centers share a window that values and projection take fewer operations at them than at the
        points. The configuration decides, not the points, so that a set's rounding never depends on its batch-mates.
        A kernel that keeps both on the chip goes before."""
        few = 2 * centers <= self.head_dim and not self.reference and not self.center_updates
        return few and not fused("cluster_hard", self.qv.weight, centers, self.head_dim)

    def query_length(self, x: Float[Tensor, "N C"], plan: Plan) -> Float[Tensor, "R L E"]:
        """Length of each point's query in each head."""
        return plan.split(query_length(x, self.qv.weight.chunk(2)[0], self.qv.bias.chunk(2)[0], self.heads))

    def project(
        self, x: Float[Tensor, "N C"], pooled: Float[Tensor, "S M C"], plan: Plan | PackedPlan
    ) -> tuple[Tensor, ...]:
        """q, v of the points, (R, L, E, D) or packed (N, E, D), and c, cv (S, M, E, D) of the centers."""
        qv, centers = self.qv(x), pooled.shape[1]
        copy = plan.row_window is not None or not fused("cluster_hard", qv, centers, self.head_dim)
        q, v = heads_first(plan.split(qv), self.heads, copy)
        c, cv = heads_first(self.qv(pooled), self.heads, copy)  # the mean of a map is the map of the mean
        rules = {"denominator": self.denominator, "unweighted": self.unweighted}
        for _ in range(self.center_updates):
            c = update_centers(q, c, self.alpha, self.beta, **rules, **layout_of(plan))
        return q, v, c, cv

    @without_float16
    def assignment(self, x: Float[Tensor, "N C"], plan: Plan) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
        """Index of the chosen center of each point, counted over all windows, and the point's weight there."""
        rows, layout = plan.split(x), {"row_window": plan.row_window, "center_valid": plan.center_valid}
        pooled = plan.pool(rows)
        if self.at_centers(pooled.shape[1]):
            heads = (2, self.heads, -1)
            wq, bq = self.qv.weight.unflatten(0, heads)[0], self.qv.bias.unflatten(0, heads)[0]
            size = self.query_length(x, plan)
            member, weight = nearest(rows, pooled, size, wq, bq, self.alpha, self.beta, **layout)
            center = member.argmax(dim=1)  # (R, M, E, L) -> (R, E, L)
        else:
            q, _, c, _ = self.project(x, pooled, plan)
            center, weight = (t.squeeze(2) for t in assign_hard(q, c, self.alpha, self.beta, **layout))
        return numbered(center, weight, pooled.shape[1], plan)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of section 3.2: maps at all points, similarities to the centers of their window (anew with
        each update) as products, two average poolings; sums over clusters are element-wise there."""
        width = self.heads * self.head_dim
        similar = Macs(products=(1 + self.center_updates) * size.points * size.centers * width)
        return linear_macs(size.points, self.qv, self.proj) + similar + Macs(other=2 * size.points * width)


def layout_of(plan: Plan | PackedPlan) -> dict[str, Tensor | None]:
    """What clustering is told of the windows."""
    if isinstance(plan, PackedPlan):
        return {"ptr": plan.ptr, "center_valid": plan.center_valid}
    return {"row_window": plan.row_window, "valid": plan.valid, "center_valid": plan.center_valid}


def heads_first(
    qv: Float[Tensor, "*N L 2ED"], heads: int, copy: bool = True
) -> tuple[Float[Tensor, "*N L E D"], Float[Tensor, "*N L E D"]]:
    """Queries and values, laid out in memory head by head: one copy here saves several inside the products. A kernel
    reads them where they lie."""
    qv = qv.unflatten(-1, (2, heads, -1))  # (*N, L, 2, E, D)
    if not copy:
        return qv.unbind(-3)
    q, v = qv.permute(2, 0, 3, 1, 4).contiguous().unbind()  # (R, E, L, D); two indices would add up two gradients
    return q.transpose(1, 2), v.transpose(1, 2)


def numbered(
    center: Int[Tensor, "R E L"], weight: Float[Tensor, "R E L"], centers: int, plan: Plan
) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Of each point its center, counted over all windows of so many centers each, and its weight there."""
    window = torch.arange(len(center), device=center.device) if plan.row_window is None else plan.row_window
    center = center + (window * centers).view(-1, 1, 1)
    return tuple(plan.merge(t.transpose(1, 2).contiguous()) for t in (center, weight))
