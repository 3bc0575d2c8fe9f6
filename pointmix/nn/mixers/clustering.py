"""What the clustering mixers share: the names of their forms, and the shapes of heads and windows."""

from __future__ import annotations

from enum import Enum
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointmix.layouts.plan import PackedPlan, Plan


class Form(Enum):
    """How a clustering mixer computes its output. All forms give the same result up to rounding.

    A mixer's `form` method chooses. The choice depends on the configuration, the device and the backends, but never on
    the number of points, so that the rounding of a set does not depend on the other sets of its batch.
    """

    REFERENCE = "the equations as they are written: with reference=True"
    FUSED_KERNEL = "linear maps, then one kernel per window: where a backend has one for its number of centers"
    PACKED_KERNEL = "one kernel from features to features, window by window: on a CPU, where AT_CENTERS would follow"
    AT_CENTERS = "values and projection at the centers: where that takes fewer multiply-adds than at the points"
    PRODUCTS = "linear maps of all points, then batched matrix products in each window: otherwise"


def fewer_at_centers(centers: int, channels: int, head_dim: int) -> bool:
    """Whether values and projection at the centers take fewer multiply-adds than at the points, for each head and
    point: products with centers of that many channels and the length of the query, against all linear maps."""
    return 3 * centers * channels + channels * head_dim <= 3 * (channels + centers) * head_dim


class RowArgs(TypedDict):
    """Window arguments of the clustering operations, for windows in rows."""

    row_window: Tensor | None
    valid: Tensor | None
    center_valid: Tensor | None


class WindowArgs(TypedDict, total=False):
    """Window arguments of the clustering operations, for windows in rows or packed one after the other."""

    ptr: Tensor
    row_window: Tensor | None
    valid: Tensor | None
    center_valid: Tensor | None


def row_args(plan: Plan) -> RowArgs:
    """Window arguments of the clustering operations for a plan with rows."""
    return {"row_window": plan.row_window, "valid": plan.valid, "center_valid": plan.center_valid}


def window_args(plan: Plan | PackedPlan) -> WindowArgs:
    """Window arguments of the clustering operations for any plan."""
    if isinstance(plan, PackedPlan):
        return {"ptr": plan.ptr, "center_valid": plan.center_valid}
    return {"row_window": plan.row_window, "valid": plan.valid, "center_valid": plan.center_valid}


def split_heads(
    qv: Float[Tensor, "*N L QV"], heads: int, copy: bool = True
) -> tuple[Float[Tensor, "*N L E D"], Float[Tensor, "*N L E D"]]:
    """Queries and values of each head, from QV = 2 * E * D channels.

    With `copy` the memory is laid out head by head, which saves several copies inside the matrix products. Fused
    kernels read the channels where they are.
    """
    qv = qv.unflatten(-1, (2, heads, -1))  # (*N, L, 2, E, D)
    if not copy:
        q, v = qv.unbind(-3)
        return q, v
    qv = qv.permute(2, 0, 3, 1, 4)  # (2, R, E, L, D)
    if torch.compiler.is_exporting():  # whether it is contiguous already may depend on the number of sets
        qv = qv.clone(memory_format=torch.contiguous_format)
    q, v = qv.contiguous().unbind()  # indexing twice would add two gradients
    return q.transpose(1, 2), v.transpose(1, 2)


def global_center_index(
    center: Int[Tensor, "R E L"], weight: Float[Tensor, "R E L"], plan: Plan
) -> tuple[Int[Tensor, "N E"], Float[Tensor, "N E"]]:
    """The center of each point, counted over all windows, and its weight there, from the center within its window."""
    window = torch.arange(len(center), device=center.device) if plan.row_window is None else plan.row_window
    center = center + (window * plan.centers).view(-1, 1, 1)
    center, weight = (plan.window_reverse(t.transpose(1, 2).contiguous()) for t in (center, weight))
    return center, weight
