"""Metrics that are computed from sums over batches and processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.tasks.protocols import Batch, Metrics, Processes


class SumMetric(ABC, Generic[Batch]):
    """A metric of S sums. They are kept in float64, in which counts stay exact (float32 on mps, which has no other).

    Args:
        size: S.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.reset()

    @abstractmethod
    def batch_sums(self, model: nn.Module, batch: Batch) -> Float[Tensor, " S"]:
        """The sums over one batch."""

    @abstractmethod
    def from_sums(self, sums: Float[Tensor, " S"]) -> Metrics:
        """The metrics of the sums over all batches, on the CPU in float64."""

    def reset(self) -> None:
        self.sums = torch.zeros(self.size, dtype=torch.float64)

    def update(self, model: nn.Module, batch: Batch) -> None:
        sums = self.batch_sums(model, batch)
        dtype = torch.float32 if sums.device.type == "mps" else torch.float64
        self.sums = self.sums.to(sums.device, dtype) + sums

    def combine(self, processes: Processes) -> None:
        self.sums = processes.sum(self.sums)

    def compute(self) -> Metrics:
        return self.from_sums(self.sums.cpu().double())
