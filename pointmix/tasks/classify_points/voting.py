"""Test-time voting: the mean prediction for parts and scalings of each cloud."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.transforms import is_voted, normalized
from pointmix.data.transforms import Transform
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, NATURAL, POSITIVE


class Voting(nn.Module):
    """A network whose class probabilities are the mean over several votes on each cloud.

    A cloud of more than `points` points is divided at random into the fewest equal parts of at most this many, each of
    which is a vote, so that every point is seen once. Votes beyond those see the cloud divided anew, with every axis
    scaled by a factor of its own. Divisions and factors are the same in every evaluation, and a cloud's result does not
    depend on the batch that it is in.

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
        parts = [1 if self.points is None else -(-size // self.points) for size in sizes]
        votes = [part if self.votes is None else self.votes for part in parts]
        draw = torch.Generator().manual_seed(self.seed)
        total: Tensor | None = None  # (B, K), logarithms of sums
        for vote in range(max(votes)):
            factor = torch.empty(points.pos.shape[1]).uniform_(self.low, self.high, generator=draw)  # (D,)
            clouds = [cloud for cloud, number in enumerate(votes) if vote < number]
            again = torch.tensor([vote >= parts[cloud] for cloud in clouds])
            inputs = self.part(points, vote, clouds)
            scale = torch.where(again[:, None], factor, 1.0).to(inputs.pos)[inputs.batch]  # (N, D)
            inputs = dataclasses.replace(inputs, pos=inputs.pos * scale) if again.any() else inputs
            scores = self.model(inputs).float().log_softmax(1)
            total = scores.new_full((len(sizes), scores.shape[1]), -torch.inf) if total is None else total
            total[clouds] = torch.logaddexp(total[clouds], scores)
        assert total is not None
        return total - total.new_tensor(votes).log()[:, None]

    def part(self, points: PointSet, vote: int, clouds: list[int] | None = None) -> PointSet:
        """What the model is given in a vote for some of the clouds, None for all, before it is scaled."""
        starts, sizes = points.ptr[:-1].tolist(), points.ptr.diff().tolist()
        chosen = range(len(sizes)) if clouds is None else clouds
        if self.points is not None and any(sizes[cloud] > self.points for cloud in chosen) or len(chosen) < len(sizes):
            index = [starts[cloud] + self._rows(sizes[cloud], vote) for cloud in chosen]
            rows = torch.cat(index).to(points.ptr.device)
            ptr = torch.tensor([0, *map(len, index)]).cumsum(0).to(points.ptr.device)
            points = PointSet(points.pos[rows], points.feat[rows], ptr)
        return points if self.normalize is None else self.normalize(points)

    def _rows(self, size: int, vote: int) -> Tensor:
        """Rows of a cloud of this size in a vote, ascending; on the CPU."""
        parts = 1 if self.points is None else -(-size // self.points)
        if parts == 1:
            return torch.arange(size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed + vote // parts))
        return order[vote % parts :: parts].sort().values


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
