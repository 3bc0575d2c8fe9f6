"""The metric of validation and test: all points of randomly sampled clouds are seen."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from pointmix.data.clouds.config import PointDataConfig
from pointmix.tasks.classification.metrics import Confusion, Labeled
from pointmix.tasks.classify_points.voting import Voting, voting


class VotedConfusion(Confusion):
    """`Confusion`, where a network that does not vote by itself sees all points of whole clouds, once, in parts.

    Args:
        num_classes: K.
        data: resolved.
    """

    def __init__(self, num_classes: int, data: PointDataConfig) -> None:
        super().__init__(num_classes, unit="clouds")
        self.data = data

    def batch_sums(self, model: nn.Module, batch: Labeled) -> Float[Tensor, " S"]:
        return super().batch_sums(model if isinstance(model, Voting) else voting(model, None, self.data), batch)
