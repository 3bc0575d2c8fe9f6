"""Inference on clouds: pieces of a scene, or whole objects, whose votes are added up at the original points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.data.segment.clouds.crops import cell_keys
from pointmix.layouts.cloud import Cloud
from pointmix.ops.ragged import counts_to_ptr
from pointmix.pointset import PointSet
from pointmix.tasks.segment.inference.base import PART, Category, Infer, logits_in_parts
from pointmix.tasks.segment.inference.votes import same
from pointmix.utils.ranges import COUNT

Index = Int[Tensor, "_"]  # of any number of points


@dataclass(frozen=True)
class CloudInfer(Infer):
    """Scenes in pieces, objects whole. A piece is a fragment of the cloud with about one point a grid cell, or a crop
    of that, of at most `max_points` points. Probabilities are added up over all pieces that hold a point and over all
    views.

    Args:
        normalize: a piece -> the input of the network, as in training.
        fragments: a cloud -> indices of fragments that together hold every point; None: the whole cloud.
        cover: a fragment -> indices of crops that together hold every point; None: the whole fragment.
        max_points: of a piece; larger ones are divided: crops into overlapping neighborhoods of this many points, whole
            clouds into random parts. None: any number.
        views: what is done to an input before each vote, such as a rotation; keeps all points in their order.
        batch_points: pieces are joined to batches of at most this many points, or a single piece.
    """

    normalize: Callable[[PointSet], PointSet] = same
    fragments: Callable[[PointSet], Sequence[Index]] | None = None
    cover: Callable[[PointSet], Sequence[Index]] | None = None
    max_points: int | None = None
    views: tuple[Callable[[PointSet], PointSet], ...] = (same,)
    batch_points: int = 1 << 17

    def __post_init__(self) -> None:
        COUNT.check(max_points=1 if self.max_points is None else self.max_points, batch_points=self.batch_points)

    def set_parts(
        self, model: nn.Module, points: PointSet, category: Category
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        if not isinstance(points.layout, Cloud):
            raise ValueError("expected a cloud, got an image")
        total: Tensor | None = None  # (N, K)
        for pieces in self._batches(points):
            index = torch.cat(pieces)
            inputs = PointSet.cat([self.normalize(_piece(points, piece)) for piece in pieces])
            of_each = None if category is None else category.expand(len(pieces))
            for view in self.views:
                for part, logits in logits_in_parts(model, view(inputs), of_each):
                    if total is None:
                        total = logits.new_zeros(len(points.feat), logits.shape[1])
                    total.index_add_(0, index[part], logits.softmax(1))
        assert total is not None
        for start in range(0, len(total), PART):
            votes = total[start : start + PART]
            number = votes.sum(1, keepdim=True)
            if not number.all():
                raise ValueError(f"{int((number == 0).sum())} points of the cloud are in no crop")
            yield slice(start, start + len(votes)), votes / number

    def pieces(self, points: PointSet) -> Iterator[Index]:
        """Indices of every piece of one cloud."""
        everything = torch.arange(len(points.feat), device=points.feat.device)
        for fragment in [everything] if self.fragments is None else self.fragments(points):
            crops = [everything[: len(fragment)]] if self.cover is None else self.cover(_piece(points, fragment))
            for crop in crops:
                yield from self._divided(points, fragment[crop])

    def _divided(self, points: PointSet, index: Index) -> Sequence[Index]:
        if self.max_points is None or len(index) <= self.max_points:
            return [index]
        if self.cover is not None:
            return [index[near] for near in nearest_cover(points.pos[index], self.max_points)]
        number = -(-len(index) // self.max_points)
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0)).to(index.device)
        return [index[order[i::number]] for i in range(number)]

    def _batches(self, points: PointSet) -> Iterator[list[Index]]:
        batch: list[Index] = []
        held = 0
        for piece in self.pieces(points):
            if batch and held + len(piece) > self.batch_points:
                yield batch
                batch, held = [], 0
            batch.append(piece)
            held += len(piece)
        yield batch


@dataclass(frozen=True)
class OnePerCell(Infer):
    """One point of each grid cell stands for all of the cell, so that the cost is that of the cells.

    Args:
        infer: of the points that are left.
        grid_size: side of the cells, in the unit of the positions.
    """

    infer: CloudInfer
    grid_size: float

    def set_parts(
        self, model: nn.Module, points: PointSet, category: Category
    ) -> Iterator[tuple[slice, Float[Tensor, "n K"]]]:
        cells, cell = cell_keys(points.pos, self.grid_size)[0].unique(return_inverse=True)
        order = torch.arange(len(cell), device=cell.device)
        first = torch.full_like(cells, len(cell)).scatter_reduce(0, cell, order, "amin")
        scores = torch.cat([part for _, part in self.infer.set_parts(model, _piece(points, first), category)])
        for start in range(0, len(cell), PART):
            chosen = cell[start : start + PART]
            yield slice(start, start + len(chosen)), scores[chosen]


def nearest_cover(pos: Float[Tensor, "N D"], number: int) -> list[Index]:
    """Neighborhoods of `number` points each that together hold every point: again and again the points nearest to the
    first one that is in none yet."""
    left = torch.ones(len(pos), dtype=torch.bool, device=pos.device)
    found = []
    while left.any():
        middle = left.byte().argmax()
        away = (pos - pos[middle]).square().sum(1)
        away[middle] = -1.0  # before others at the same place
        near = away.topk(min(number, len(pos)), largest=False).indices
        left[near] = False
        found.append(near)
    return found


def _piece(points: PointSet, index: Index) -> PointSet:
    """Some points of one cloud, in the order of the index."""
    return PointSet(points.pos[index], points.feat[index], counts_to_ptr(index.new_tensor([len(index)])))
