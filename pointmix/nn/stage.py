"""A stage of a network: reduce the points, plan once, run the blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pointmix.layouts.plan import Plan, with_offsets
from pointmix.nn.block import Block
from pointmix.nn.norm import Sets
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT


@dataclass(frozen=True)
class Assignment:
    """What one block clustered.

    Args:
        name: of the block, as in `named_modules`.
        center: (N, E) index into `center_pos` of the center that each point chose in each head.
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


class Stage(nn.Module):
    """Reduce the points, plan windows and centers once, run the blocks.

    Args:
        reducer: makes the stage's points.
        blocks: called with features, plan and sets.
        folds: windows a side.
        centers: centers a side of each window.
        planning: further arguments of the layouts' `plan`.
        offsets: the blocks need the position of each point from each center.
        shifted: every second block has its windows rolled by half of one.
    """

    def __init__(
        self,
        reducer: nn.Module,
        blocks: Sequence[Block],
        *,
        folds: int,
        centers: int,
        planning: Mapping[str, object] | None = None,
        offsets: bool = False,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        COUNT.check(folds=folds, centers=centers)
        self.reducer, self.blocks = reducer, nn.ModuleList(blocks)
        self.folds, self.centers, self.planning = folds, centers, dict(planning or {})
        self.offsets, self.shifted = offsets, shifted
        self.grad_checkpointing = False

    def plan(self, points: PointSet, **kwargs) -> tuple[Plan, Sets]:
        """All integer work of the stage."""
        plan = points.layout.plan(points.pos, points.ptr, self.folds, self.centers, **self.planning, **kwargs)
        return with_offsets(plan, points.pos) if self.offsets else plan, Sets.of(points)

    def plans(self, points: PointSet) -> tuple[list[Plan], Sets]:
        """What the blocks use in turns."""
        plan, sets = self.plan(points)
        rolled = self.shifted and len(self.blocks) > 1
        return [plan, self.plan(points, shift=True)[0]] if rolled else [plan], sets

    def forward(self, points: PointSet) -> PointSet:
        points = self.reducer(points)
        plans, sets = self.plans(points)
        plan = plans[0]
        x = plan.enter(points.feat)
        for i, block in enumerate(self.blocks):
            x, plan = _entered(x, plan, plans[i % len(plans)])
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, plan, sets, use_reentrant=False)
            else:
                x = block(x, plan, sets)
        return points.with_feat(plan.leave(x))

    def explain(self, points: PointSet, prefix: str) -> tuple[PointSet, list[Assignment]]:
        """The stage's output, and what each of its blocks clustered."""
        points = self.reducer(points)
        plans, sets = self.plans(points)
        where = [_windows(plan, points.pos) for plan in plans]
        plan = plans[0]
        x, found = plan.enter(points.feat), []
        for i, block in enumerate(self.blocks):
            x, plan = _entered(x, plan, plans[i % len(plans)])
            if block.mixer is not None:
                center, weight = map(plan.leave, block.mixer.assignment(block.norm1(x, sets), plan))
                here = points.with_feat(plan.leave(x))
                found.append(Assignment(f"{prefix}.blocks.{i}", center, weight, *where[i % len(plans)], here))
            x = block(x, plan, sets)
        return points.with_feat(plan.leave(x)), found


def _entered(x: Float[Tensor, "N C"], plan: Plan, other: Plan) -> tuple[Float[Tensor, "N C"], Plan]:
    """Features in the order of another plan."""
    return (x, plan) if other is plan else (other.enter(plan.leave(x)), other)


def _windows(plan: Plan, pos: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N"], Float[Tensor, "K D"]]:
    """The window of each point, and the mean position of the points of each center."""
    rows = plan.split(plan.enter(pos))  # (R, L, D)
    center_pos = plan.pool(rows).flatten(0, 1)  # (S, M, D) -> (K, D)
    window = torch.arange(len(rows), device=pos.device) if plan.row_window is None else plan.row_window  # (R,)
    window = plan.merge(window.view(-1, 1, 1).expand(-1, rows.shape[1], 1).contiguous())
    return plan.leave(window).squeeze(-1), center_pos
