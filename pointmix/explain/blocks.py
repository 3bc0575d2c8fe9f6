"""The blocks of a model whose clusters are drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.nn.stage import Assignment
from pointmix.ops.neighbors import knn
from pointmix.pointset import PointSet
from pointmix.utils.messages import counted

HEAD = 0  # the head that is drawn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, the previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def explained_blocks(model: nn.Module, x: Tensor | PointSet) -> list[Assignment]:
    """The first block and the last one of each stage; none if no block of the model clusters."""
    explain: Callable[[Tensor | PointSet], list[Assignment]] | None = getattr(model, "explain", None)
    return [] if explain is None else first_and_last(explain(x))


def first_and_last(assignments: list[Assignment]) -> list[Assignment]:
    """The first block and the last one of each stage."""
    last = {stage_of(a): a for a in assignments}
    first = [] if not assignments or last[stage_of(assignments[0])] is assignments[0] else assignments[:1]
    return [*first, *last.values()]


def stage_of(assignment: Assignment) -> str:
    return assignment.name.rpartition(".blocks.")[0]


def block_title(assignment: Assignment) -> str:
    """Stage, block and centers per window."""
    stage, _, block = assignment.name.rpartition(".blocks.")
    windows = int(assignment.window.max()) + 1
    centers = counted(len(assignment.center_pos) // windows, "center")
    return f"stage {int(stage.rpartition('.')[2]) + 1}, block {int(block) + 1}\n{centers} per window"


def groups_nothing(assignment: Assignment, row: int) -> bool:
    """Whether set `row` has as many centers as points in a block, so that each point may be a cluster of its own."""
    lo, hi = assignment.points.ptr[row : row + 2].tolist()
    windows, own = len(assignment.window.unique()), len(assignment.window[lo:hi].unique())
    return len(assignment.center_pos) * own >= windows * (hi - lo)  # windows of one size each


def wrapped(text: str, width: int = 36) -> str:
    """Lines of at most `width` characters, for text below a panel or above a row of panels."""
    return "\n".join(textwrap.wrap(text, width))


def truth_and_guess(truth: str | None, guess: str, probability: float | None = None) -> str:
    """ "cat, predicted dog (93 %)", where the true class is known."""
    share = "" if probability is None else f" ({100 * probability:.0f}\N{NO-BREAK SPACE}%)"
    return f"{guess}{share}" if truth is None else f"{truth}, predicted {guess}{share}"


def center_and_window(
    assignment: Assignment, row: int, pos: Float[Tensor, "n D"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Center and window of positions in set `row`, those of the nearest point of the stage."""
    lo, hi = assignment.points.ptr[row : row + 2].tolist()
    nearest = nearest_points(assignment.points, row, pos)
    return assignment.center[lo:hi, HEAD].cpu()[nearest], assignment.window[lo:hi].cpu()[nearest]


def nearest_points(points: PointSet, row: int, pos: Float[Tensor, "n D"]) -> Int[Tensor, " n"]:
    """For each position the nearest point of set `row`, counted within the set; on the CPU."""
    lo, hi = points.ptr[row : row + 2].tolist()
    stage = points.pos[lo:hi].to("cpu", pos.dtype)
    return knn(stage, torch.tensor([0, hi - lo]), pos, torch.tensor([0, len(pos)]), 1)[:, 0]  # (n,)
