"""Test-time voting: the mean prediction for several scalings of each cloud."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, NATURAL, POSITIVE


class Voting(nn.Module):
    """A network whose class probabilities are the mean over several scalings of the input.

    The first vote is for the clouds as they are. In each other vote every axis is scaled by its own factor, the same
    for all clouds, so a cloud's result does not depend on the batch that it is in.

    Args:
        model: clouds -> logits (B, K).
        votes: number of votes, at least 1.
        low, high: range of the factors (PointMLP scales by 2/3 to 3/2 in training and voting).
        seed: of the factors.

    Raises:
        ValueError: there is no vote, or the range is not one of positive numbers.
    """

    def __init__(self, model: nn.Module, *, votes: int = 10, low: float = 2 / 3, high: float = 3 / 2, seed: int = 0):
        super().__init__()
        COUNT.check(votes=votes)
        POSITIVE.check(low=low, high=high)
        NATURAL.check(seed=seed)
        if low > high:
            raise ValueError(f"voting needs factors from low to high, got {low} to {high}")
        self.model, self.votes, self.low, self.high, self.seed = model, votes, low, high, seed

    def forward(self, points: PointSet) -> Float[Tensor, "B K"]:
        """Logarithms of the mean probabilities, which serve as logits."""
        points = points if isinstance(points, PointSet) else PointSet.from_batch(points)
        draw = torch.Generator().manual_seed(self.seed)
        votes = []
        for vote in range(self.votes):
            factor = torch.empty(points.pos.shape[1]).uniform_(self.low, self.high, generator=draw)  # (D,)
            scaled = points if vote == 0 else dataclasses.replace(points, pos=points.pos * factor.to(points.pos))
            votes.append(self.model(scaled).float().log_softmax(1))  # (B, K)
        return torch.stack(votes).logsumexp(0) - math.log(self.votes)


def check_votes(votes: int, data: PointDataConfig) -> None:
    """Refuse a number of votes below 1, or more than one where the data do not allow it."""
    COUNT.check(votes=votes)
    if votes > 1 and data.features == "normal":
        raise ValueError("votes scale positions but not normals; expected votes 1 with data.features normal")


def voting(model: nn.Module, votes: int, data: PointDataConfig) -> nn.Module:
    """The mean of several votes, on clouds scaled as in training, or by 2/3 to 3/2 where training does not scale; the
    network itself for one vote."""
    if votes == 1:
        return model
    low, high = data.scale if data.scale[0] < data.scale[1] else (2 / 3, 3 / 2)
    return Voting(model, votes=votes, low=low, high=high)
