"""The mixer of Context Clusters: hard clustering of the points of each window."""

from __future__ import annotations

from typing import Protocol, TypedDict, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.layouts.plan import PackedPlan, Plan
from pointmix.nn.mixers.clustering import (
    Form,
    fewer_at_centers,
    global_center_index,
    row_args,
    split_heads,
    window_args,
)
from pointmix.nn.norm import SetIndex
from pointmix.ops.clustering import (
    DENOMINATORS,
    assign_hard,
    cluster_hard,
    cluster_hard_reference,
    fused,
    update_centers,
)
from pointmix.ops.context import context_cluster, nearest
from pointmix.ops.dispatch import choose, has_tangent
from pointmix.ops.precision import without_float16
from pointmix.ops.query_length import query_length
from pointmix.profile.macs import Macs, Size, linear_macs
from pointmix.utils.ranges import COUNT, NATURAL, check_choice
from pointmix.utils.tracing import exported


class _Rules(TypedDict):
    """The options of the operations."""

    denominator: str
    unweighted: bool


@runtime_checkable
class _Kernel(Protocol):
    """The kernel of packed windows: of the features, the windows and the parameters."""

    def __call__(self, *tensors: Tensor, heads: int, denominator: str, unweighted: bool) -> Tensor: ...


class ContextCluster(nn.Module):
    """Hard context clustering in the windows of a plan (Context Clusters, section 3.2).

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

    def form(self, x: Float[Tensor, "N C"], plan: Plan) -> Form:
        """The form that `forward` takes."""
        return self._choose(x, plan, self.weights())[0]

    def _choose(self, x: Float[Tensor, "N C"], plan: Plan, weights: tuple[Tensor, ...]) -> tuple[Form, _Kernel | None]:
        """The form and, for the kernel of packed windows, the function."""
        if self.reference:
            return Form.REFERENCE, None
        kernel_exists = fused("cluster_hard", weights[0], plan.centers, self.head_dim)
        if kernel_exists and not has_tangent(x, *weights):  # kernels have no forward-mode derivatives
            return Form.FUSED_KERNEL, None
        if self.center_updates or not fewer_at_centers(plan.centers, self.qv.in_features, self.head_dim):
            return Form.PRODUCTS, None
        if exported() or has_tangent(x, *weights) or plan.as_packed() is None:
            return Form.AT_CENTERS, None
        kernel = choose("context_cluster", x)
        return (Form.AT_CENTERS, None) if kernel is None else (Form.PACKED_KERNEL, kernel)

    @without_float16
    def forward(self, x: Float[Tensor, "N C"], plan: Plan, sets: SetIndex | None = None) -> Float[Tensor, "N C"]:
        weights = self.weights()
        form, kernel = self._choose(x, plan, weights)
        packed = None if kernel is None else plan.as_packed()
        if kernel is not None and packed is not None:
            windows = packed.ptr, packed.members, packed.center_valid
            return kernel(x, *windows, *weights, heads=self.heads, **self.rules())
        if form is Form.AT_CENTERS:
            return self._at_centers(x, plan)
        return self._at_points(x, plan, form)

    def _at_centers(self, x: Float[Tensor, "N C"], plan: Plan) -> Float[Tensor, "N C"]:
        rows = plan.window_partition(x)
        pooled, length = plan.pool_centers(rows), plan.window_partition(self._query_length(x))
        args = rows, pooled, length, *self.weights()
        out = context_cluster(*args, heads=self.heads, **self.rules(), **row_args(plan))
        return plan.window_reverse(out)

    def _at_points(self, x: Float[Tensor, "N C"], plan: Plan, form: Form) -> Float[Tensor, "N C"]:
        pooled = plan.pool_centers(plan.window_partition(x))
        windows: Plan | PackedPlan = plan
        if form is Form.FUSED_KERNEL and not self.center_updates and plan.packed is not None:
            windows = plan.packed
        q, v, c, cv = self._project(x, pooled, windows, form)
        args = q, v, c, cv, self.alpha, self.beta
        if form is Form.REFERENCE:
            o = cluster_hard_reference(*args, **self.rules(), **row_args(plan))
        else:
            o = cluster_hard(*args, **self.rules(), **window_args(windows))
        return self.proj(windows.window_reverse(o.flatten(-2)))

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All parameters, in the order in which the operations take them."""
        qv, proj = self.qv, self.proj  # reading an attribute of a module takes a microsecond
        return qv.weight, qv.bias, proj.weight, proj.bias, self.alpha, self.beta

    def rules(self) -> _Rules:
        """The options of the operations."""
        return {"denominator": self.denominator, "unweighted": self.unweighted}

    def _query_length(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N E"]:
        """Length of each point's query in each head."""
        return query_length(x, self.qv.weight.chunk(2)[0], self.qv.bias.chunk(2)[0], self.heads)

    def _project(
        self, x: Float[Tensor, "N C"], pooled: Float[Tensor, "S M C"], plan: Plan | PackedPlan, form: Form
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, v of the points, (R, L, E, D) or packed (N, E, D), and c, cv (S, M, E, D) of the centers."""
        copy = plan.row_window is not None or form is not Form.FUSED_KERNEL
        q, v = split_heads(plan.window_partition(self.qv(x)), self.heads, copy)
        c, cv = split_heads(self.qv(pooled), self.heads, copy)  # the mean of a linear map is the map of the mean
        for _ in range(self.center_updates):
            c = update_centers(q, c, self.alpha, self.beta, **self.rules(), **row_args(cast("Plan", plan)))
        return q, v, c, cv

    @without_float16
    def assignment(self, x: Float[Tensor, "N C"], plan: Plan) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
        """Index of the chosen center of each point, counted over all windows, and the point's weight there."""
        rows, layout = plan.window_partition(x), {"row_window": plan.row_window, "center_valid": plan.center_valid}
        pooled, form = plan.pool_centers(rows), self.form(x, plan)
        if form in (Form.AT_CENTERS, Form.PACKED_KERNEL):
            heads = (2, self.heads, -1)
            wq, bq = self.qv.weight.unflatten(0, heads)[0], self.qv.bias.unflatten(0, heads)[0]
            length = plan.window_partition(self._query_length(x))
            member, weight = nearest(rows, pooled, length, wq, bq, self.alpha, self.beta, **layout)
            center = member.argmax(dim=1)  # (R, M, E, L) -> (R, E, L)
        else:
            q, _, c, _ = self._project(x, pooled, plan, form)
            center, weight = (t.squeeze(2) for t in assign_hard(q, c, self.alpha, self.beta, **layout))
        return global_center_index(center, weight, plan)

    def macs(self, size: Size) -> Macs:
        """Multiply-adds of section 3.2: linear maps of all points, their similarities to the centers of their window as
        products (again with each center update), two average poolings; sums over clusters are element-wise there."""
        width = self.heads * self.head_dim
        similarity = Macs(products=(1 + self.center_updates) * size.points * size.centers * width)
        return linear_macs(size.points, self.qv, self.proj) + similarity + Macs(other=2 * size.points * width)
