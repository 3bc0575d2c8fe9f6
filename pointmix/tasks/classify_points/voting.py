"""Test-time voting: the mean prediction for parts and scalings of each cloud."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.transforms import is_voted, normalized
from pointmix.data.transforms import Transform
from pointmix.ops.ragged import counts_to_ptr
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, NATURAL, POSITIVE

PASS_POINTS = 1 << 15  # that the model is given at a time: 32 clouds of 1024 points


class Vote(NamedTuple):
    """A vote on a cloud.

    Args:
        cloud: its place in the batch.
        number: of the vote, from 0.
        rows: of the cloud, ascending; on the CPU.
    """

    cloud: int
    number: int
    rows: Int[Tensor, " n"]


class Voting(nn.Module):
    """A network whose class probabilities are the mean over several votes on each cloud.

    A cloud of more than `points` points is divided at random into the fewest equal parts of at most this many, each of
    which is a vote, so that every point is seen once. Votes beyond those see the cloud divided anew, with every axis
    scaled by a factor of its own. Divisions and factors are the same in every evaluation, and a cloud's result does not
    depend on the batch that it is in. The model is given several votes at a time: one on every cloud, or more if these
    are of at most `PASS_POINTS` points.

    Args:
        model: clouds -> logits (B, K).
        votes: number of votes; None: those that see every point once.
        points: of a part; None: the whole cloud.
        normalize: a part -> the input of the model.
        low, high: range of the factors (PointMLP scales by 2/3 to 3/2 in training and voting).
        seed: of divisions and factors.

    Raises:
        ValueError: there is no vote, or the range is not one of positive numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        votes: int | None = 10,
        points: int | None = None,
        normalize: Transform | None = None,
        low: float = 2 / 3,
        high: float = 3 / 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        COUNT.check(votes=1 if votes is None else votes, points=1 if points is None else points)
        POSITIVE.check(low=low, high=high)
        NATURAL.check(seed=seed)
        if low > high:
            raise ValueError(f"voting needs factors from low to high, got {low} to {high}")
        self.model, self.votes, self.points, self.normalize = model, votes, points, normalize
        self.low, self.high, self.seed = low, high, seed

    def forward(self, points: PointSet) -> Float[Tensor, "B K"]:
        """Logarithms of the mean probabilities, which serve as logits."""
        points = points if isinstance(points, PointSet) else PointSet.from_batch(points)
        sizes = points.ptr.diff().tolist()
        numbers = [self._parts(size) if self.votes is None else self.votes for size in sizes]
        draw = torch.Generator().manual_seed(self.seed)
        dims = points.pos.shape[1]
        factors = torch.stack(
            [torch.empty(dims).uniform_(self.low, self.high, generator=draw) for _ in range(max(numbers))]
        )  # (max votes, D)
        scores, clouds = [], []
        for votes in self._passes(sizes, numbers):
            inputs = self._inputs(points, votes)
            again = torch.tensor([vote.number >= self._parts(sizes[vote.cloud]) for vote in votes])
            if again.any():
                scale = torch.where(again[:, None], factors[[vote.number for vote in votes]], 1.0)  # (votes, D)
                inputs = dataclasses.replace(inputs, pos=inputs.pos * scale.to(inputs.pos)[inputs.batch])
            scores.append(self.model(inputs).float().log_softmax(1))
            clouds += [vote.cloud for vote in votes]
        by_cloud = torch.cat(scores)[torch.tensor(clouds).argsort(stable=True).to(points.ptr.device)].split(numbers)
        return torch.stack([own.logsumexp(0) - math.log(len(own)) for own in by_cloud])

    def part(self, points: PointSet) -> PointSet:
        """What the model is given in the first vote on each cloud."""
        return self._inputs(points, list(self._votes(points.ptr.diff().tolist(), [1] * points.num_sets)))

    def _parts(self, size: int) -> int:
        return 1 if self.points is None else -(-size // self.points)

    def _passes(self, sizes: list[int], numbers: list[int]) -> Iterator[list[Vote]]:
        """The votes that the model is given at a time."""
        once = sum(size if self.points is None else min(size, self.points) for size in sizes)
        votes: list[Vote] = []
        held = 0
        for vote in self._votes(sizes, numbers):
            if votes and held + len(vote.rows) > max(once, PASS_POINTS):
                yield votes
                votes, held = [], 0
            votes.append(vote)
            held += len(vote.rows)
        yield votes

    def _votes(self, sizes: list[int], numbers: list[int]) -> Iterator[Vote]:
        """The first vote on each cloud, then the second, and so on."""
        division: dict[int, Tensor] = {}  # cloud -> its points in random order
        for number in range(max(numbers)):
            for cloud, size in enumerate(sizes):
                if number >= numbers[cloud]:
                    continue
                parts = self._parts(size)
                if parts == 1:
                    yield Vote(cloud, number, torch.arange(size))
                    continue
                if number % parts == 0:
                    draw = torch.Generator().manual_seed(self.seed + number // parts)
                    division[cloud] = torch.randperm(size, generator=draw)
                yield Vote(cloud, number, division[cloud][number % parts :: parts].sort().values)

    def _inputs(self, points: PointSet, votes: list[Vote]) -> PointSet:
        """What the model is given in these votes, before it is scaled."""
        starts, device = points.ptr.tolist(), points.ptr.device
        rows = torch.cat([starts[vote.cloud] + vote.rows for vote in votes]).to(device)
        ptr = counts_to_ptr(torch.tensor([len(vote.rows) for vote in votes])).to(device)
        inputs = PointSet(points.pos[rows], points.feat[rows], ptr)
        return inputs if self.normalize is None else self.normalize(inputs)


def check_votes(votes: int | None, data: PointDataConfig) -> None:
    """Refuse a number of votes below 1, or more than one where the data do not allow it."""
    COUNT.check(votes=1 if votes is None else votes)
    if votes is not None and votes > 1 and "normal" in data.features:
        raise ValueError("votes scale positions but not normals; expected votes 1 with normal among data.features")


def voting(model: nn.Module, votes: int | None, data: PointDataConfig, *, parts: bool | None = None) -> nn.Module:
    """The mean of several votes, on clouds scaled as in training, or by 2/3 to 3/2 where training does not scale; the
    network itself for a single vote on whole clouds.

    Args:
        data: resolved.
        parts: whether the clouds are given whole, to be divided and normalized here; None: as tests get them.
    """
    divided = is_voted(data) if parts is None else parts
    if not divided and votes in (None, 1):
        return model
    low, high = data.scale if data.scale[0] < data.scale[1] else (2 / 3, 3 / 2)
    points, normalize = (data.most_points, normalized(data)) if divided else (None, None)
    return Voting(model, votes=votes, points=points, normalize=normalize, low=low, high=high)


def points_seen(votes: int | None, data: PointDataConfig) -> str:
    """Which points of a cloud an evaluation sees, in words."""
    number = data.most_points
    if number is None:
        return "all points of each cloud"
    if data.sampling != "random":
        return f"the first {number} points of each cloud" if data.sampling == "first" else f"{number} farthest points"
    if votes is None:
        return f"all points of each cloud, in random parts of at most {number}"
    return f"{votes} random part{'s' * (votes > 1)} of each cloud, of at most {number} points"
