"""A stage of a network: reduce the points, plan once, run the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pointmix.layouts.base import PlanOptions
from pointmix.layouts.plan import Plan, with_relative_pos
from pointmix.nn.block import Block
from pointmix.nn.mixers.base import ClusteringMixer
from pointmix.nn.norm import SetIndex
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT


@dataclass(frozen=True)
class Assignment:
    """Which center each point joined in one block.

    Args:
        name: of the block, as in `named_modules`.
        center: (N, E) index into `center_pos` of each point's center in each head.
        weight: (N, E) weight of the point there, in (0, 1).
        window: (N,) window of each point, counted over the batch.
        center_pos: (K, D) mean position of the points that form each center.
        points: the stage's points, with the block's input as features.
    """

    name: str
    center: Int[Tensor, "N E"]
    weight: Float[Tensor, "N E"]
    window: Int[Tensor, "N"]
    center_pos: Float[Tensor, "K D"]
    points: PointSet


class StageOptions(TypedDict, total=False):
    """Optional arguments of a `Stage`."""

    plan_options: PlanOptions
    relative_pos: bool
    shift: bool


class Stage(nn.Module):
    """Reduce the points, plan windows and centers once, run the blocks.

    Args:
        reducer: PointSet to the points of the stage.
        blocks: called with features, plan and sets.
        windows_per_side: number of windows along each side.
        centers_per_side: number of centers along each side of a window.
        plan_options: optional arguments of the layouts' `plan`.
        relative_pos: plans hold the positions of points relative to the centers.
        shift: every second block has its windows rolled by half of one.
    """

    def __init__(
        self,
        reducer: nn.Module,
        blocks: Sequence[Block],
        *,
        windows_per_side: int,
        centers_per_side: int,
        plan_options: PlanOptions | None = None,
        relative_pos: bool = False,
        shift: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(windows_per_side=windows_per_side, centers_per_side=centers_per_side)
        self.reducer, self.blocks = reducer, nn.ModuleList(blocks)
        self.windows_per_side, self.centers_per_side = windows_per_side, centers_per_side
        self.plan_options, self.relative_pos, self.shift = plan_options or PlanOptions(), relative_pos, shift
        self.grad_checkpointing = False

    def plan(self, points: PointSet, *, shift: bool = False) -> Plan:
        """Windows and centers of the stage's points."""
        size = self.windows_per_side, self.centers_per_side
        options: PlanOptions = {**self.plan_options, "shift": True} if shift else self.plan_options
        plan = points.layout.plan(points.pos, points.ptr, *size, **options)
        return with_relative_pos(plan, points.pos) if self.relative_pos else plan

    def plans(self, points: PointSet) -> list[Plan]:
        """The plans that the blocks use in turns."""
        shift = self.shift and len(self.blocks) > 1
        return [self.plan(points), self.plan(points, shift=True)] if shift else [self.plan(points)]

    def forward(self, points: PointSet) -> PointSet:
        points = self.reducer(points)
        plans, sets = self.plans(points), SetIndex.of(points)
        plan = plans[0]
        x = plan.to_window_order(points.feat)
        for i, block in enumerate(self.blocks):
            x, plan = _reordered(x, plan, plans[i % len(plans)])
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, plan, sets, use_reentrant=False)
            else:
                x = block(x, plan, sets)
        return points.with_feat(plan.from_window_order(x))

    def explain(self, points: PointSet, prefix: str) -> tuple[PointSet, list[Assignment]]:
        """The stage's output, and the assignment of each of its blocks whose mixer is a `ClusteringMixer`."""
        points = self.reducer(points)
        plans, sets = self.plans(points), SetIndex.of(points)
        windows = [_windows(plan, points.pos) for plan in plans]
        plan = plans[0]
        x, found = plan.to_window_order(points.feat), []
        for i, block in enumerate(self.blocks):
            x, plan = _reordered(x, plan, plans[i % len(plans)])
            block = cast(Block, block)
            if isinstance(block.mixer, ClusteringMixer):
                center, weight = map(plan.from_window_order, block.mixer.assignment(block.norm1(x, sets), plan))
                here = points.with_feat(plan.from_window_order(x))
                found.append(Assignment(f"{prefix}.blocks.{i}", center, weight, *windows[i % len(plans)], here))
            x = block(x, plan, sets)
        return points.with_feat(plan.from_window_order(x)), found


def _reordered(x: Float[Tensor, "N C"], plan: Plan, other: Plan) -> tuple[Float[Tensor, "N C"], Plan]:
    """Features in the window order of another plan."""
    return (x, plan) if other is plan else (other.to_window_order(plan.from_window_order(x)), other)


def _windows(plan: Plan, pos: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N"], Float[Tensor, "K D"]]:
    """The window of each point, and the mean position of the points of each center."""
    rows = plan.window_partition(plan.to_window_order(pos))  # (R, L, D)
    center_pos = plan.pool_centers(rows).flatten(0, 1)  # (S, M, D) -> (K, D)
    window = torch.arange(len(rows), device=pos.device) if plan.row_window is None else plan.row_window  # (R,)
    window = plan.window_reverse(window.view(-1, 1, 1).expand(-1, rows.shape[1], 1).contiguous())
    return plan.from_window_order(window).squeeze(-1), center_pos
