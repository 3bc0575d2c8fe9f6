"""Test-time voting: one cloud seen at several scales."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.pointset import PointSet
from pointmix.utils.ranges import COUNT, NATURAL, POSITIVE


class Voting(nn.Module):
    """A network whose class probabilities are the mean over several scalings of the input.

    The first vote is on the clouds as they are; for each other one every axis is scaled by a factor of its own, the
    same for all clouds, so that a cloud's result depends neither on its neighbors in the batch nor on the order.

    Args:
        model: clouds -> logits (B, K).
        votes: how many, at least 1.
        low, high: range of the factors (PointMLP scales by 2/3 to 3/2 in training and voting).
        seed: of the factors.

    Raises:
        ValueError: if there is no vote, or the range is not one of positive numbers.
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
            seen = points if vote == 0 else dataclasses.replace(points, pos=points.pos * factor.to(points.pos))
            votes.append(self.model(seen).float().log_softmax(1))  # (B, K)
        return torch.stack(votes).logsumexp(0) - math.log(self.votes)
